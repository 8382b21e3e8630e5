"""The exported manifests: what stands where, for each construct that the equality suite does not see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, task
from argo_simulator.expressions import evaluate

from airflow_provider_raynode.argo import outcome
from airflow_provider_raynode.argo.checks import RefusedError
from airflow_provider_raynode.argo.export import ExportError, export_dag, export_dag_file
from airflow_provider_raynode.argo.run_info import param_value
from airflow_provider_raynode.argo.template_defaults import as_run
from airflow_provider_raynode.cli import main

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {"catalog": "s3://bucket/raynode"}


def exported(dag: DAG, **options: Any) -> list[dict[str, Any]]:
    options.setdefault("settings", SETTINGS)
    return list(yaml.safe_load_all(export_dag(dag, Path("dags/x.py"), **options).text))


def one_task(**options: Any) -> Any:
    @task(**options)
    def work() -> int:
        return 1

    return work()


def templates(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    spec = manifest["spec"].get("workflowSpec", manifest["spec"])
    return {template["name"]: template for template in spec["templates"]}


def pod(manifest: dict[str, Any], name: str = "work") -> dict[str, Any]:
    """The template of a task as Argo runs it: laid over the defaults, with the task's arguments in it."""
    found = templates(manifest)
    (task,) = [each for each in found["dag"]["dag"]["tasks"] if each["name"] == name]
    spec = manifest["spec"].get("workflowSpec", manifest["spec"])
    template = as_run(found[task["template"]], spec["templateDefaults"])
    given = {each["name"]: each["value"] for each in task["arguments"]["parameters"]}
    text = json.dumps(template)
    for each in template["inputs"]["parameters"]:
        value = given.get(each["name"], each.get("value"))
        text = text.replace(f"{{{{inputs.parameters.{each['name']}}}}}", json.dumps(value)[1:-1])
    return dict(json.loads(text))


def test_a_cron_workflow() -> None:
    start = datetime(2026, 1, 1, tzinfo=pendulum.timezone("Europe/Berlin"))
    with DAG("nightly_report", schedule="30 2 * * 7", start_date=start, description="All {numbers}") as dag:
        one_task()
    (manifest,) = exported(dag)
    assert manifest["kind"] == "CronWorkflow"
    assert manifest["metadata"]["name"] == "nightly-report"
    assert manifest["metadata"]["annotations"]["raynode/dag-id"] == "nightly_report"
    assert manifest["metadata"]["annotations"]["workflows.argoproj.io/description"] == "All {numbers}"
    assert manifest["spec"]["schedules"] == ["30 2 * * 0"]
    assert manifest["spec"]["timezone"] == "Europe/Berlin"
    assert "--scheduled-time={{workflow.scheduledTime}}" in pod(manifest)["script"]["args"]


def test_a_cron_workflow_always_names_its_zone_and_holds_its_dates() -> None:
    dates = {"start_date": datetime(2040, 1, 1, tzinfo=UTC), "end_date": datetime(2040, 2, 1, tzinfo=UTC)}
    with DAG("dated", schedule="0 0 */1 * 1", **dates) as dag:
        one_task()
    (manifest,) = exported(dag)
    assert manifest["spec"]["timezone"] == "UTC"
    assert manifest["spec"]["schedules"] == ["0 0 1-31 * 1"]
    assert (
        manifest["spec"]["when"]
        == "{{= now() >= date('2039-12-31T23:59:30Z') && now() < date('2040-02-01T23:59:30Z') }}"
    )
    assert "'0 0 */1 * 1'" in export_dag(dag, Path("dag.py")).text, "the line as Airflow has it is in the comment"


def test_a_template_needs_no_schedule_that_argo_knows() -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with DAG("by_hand", schedule=timedelta(days=1), catchup=True, start_date=start) as dag:
        one_task()
    export = export_dag(dag, Path("dag.py"), kind="template")
    assert "kind: WorkflowTemplate" in export.text
    assert export.warnings[0].startswith("--kind template: the schedule (DeltaTriggerTimetable) is left out")


@pytest.mark.parametrize(
    ("schedule", "option", "kind"),
    [
        (None, "auto", "WorkflowTemplate"),
        ("@once", "auto", "Workflow"),
        ("@daily", "auto", "CronWorkflow"),
        ("@daily", "template", "WorkflowTemplate"),
        ("@daily", "workflow", "Workflow"),
    ],
)
def test_kinds(schedule: Any, option: Any, kind: str) -> None:
    with DAG("kinds", schedule=schedule) as dag:
        one_task()
    (manifest,) = exported(dag, kind=option)
    assert manifest["kind"] == kind
    assert ("generateName" in manifest["metadata"]) is (kind == "Workflow")


def test_a_cron_workflow_needs_a_cron() -> None:
    with DAG("none", schedule=None) as dag:
        one_task()
    with pytest.raises(ExportError, match="--kind cron: none has no cron schedule"):
        exported(dag, kind="cron")


def test_params_are_json_with_their_enum_and_no_tag_of_argos() -> None:
    params = {
        "who": Param("me", type="string", enum=["me", "you"], description="who it is for"),
        "rows": [1, {"a": None}],
        "template": "{{ ds }} and }}",
        "open": Param(type="integer"),
    }
    with DAG("params", schedule=None, params=params) as dag:
        one_task()
    (manifest,) = exported(dag)
    found = {each["name"]: each for each in manifest["spec"]["arguments"]["parameters"]}
    assert found["logical-date"]["value"] == ""
    assert found["who"] == {
        "name": "who",
        "value": "me",
        "enum": ["me", "you"],
        "description": "who it is for",
    }
    assert json.loads(found["rows"]["value"]) == [1, {"a": None}]
    assert "{{" not in found["template"]["value"]
    assert json.loads(found["template"]["value"]) == "{{ ds }} and }}"
    assert "value" not in found["open"]


TEXTS = ["me", "1", "true", "null", '"x"', "", " a", "{}", "[1", "{{ ds }}", "a\nb", "1.0", "NaN", "nan", "-", "é"]


@pytest.mark.parametrize("schema", [{}, {"type": "string"}, {"type": ["string", "null"]}], ids=str)
def test_text_is_shown_without_quotes_where_the_pods_read_it_as_text(schema: dict[str, Any]) -> None:
    params = {f"p{number}": Param(text, **schema) for number, text in enumerate(TEXTS)}
    params["chosen"] = Param("1", type="string", enum=["1", "a", '"b"'])
    with DAG("texts", schedule=None, params=params) as dag:
        one_task()
    (manifest,) = exported(dag)
    found = {each["name"]: each for each in manifest["spec"]["arguments"]["parameters"]}
    for number, text in enumerate(TEXTS):
        shown = found[f"p{number}"]["value"]
        assert param_value(dag, f"p{number}", shown) == text
        if text in ("me", "", " a", "[1", "-", "é") or (text in ("1", "true", "{}") and schema.get("type") == "string"):
            assert shown == text
    assert found["chosen"]["value"] == found["chosen"]["enum"][0] == "1"
    assert [param_value(dag, "chosen", each) for each in found["chosen"]["enum"]] == ["1", "a", '"b"']


def test_a_run_bears_its_dag_and_its_date() -> None:
    with DAG("nightly", schedule="0 2 * * *") as dag:
        one_task()
    (manifest,) = exported(dag)
    found = manifest["spec"]["workflowSpec"]["workflowMetadata"]
    assert found["labels"] == found["annotations"] == {"raynode/dag-id": "nightly"}
    label = found["labelsFrom"]["raynode/logical-date"]["expression"]
    for given, scheduled, date in [
        ("", "2026-01-31T06:00:00Z", "2026-01-31T06-00-00Z"),
        ("2026-02-01", "2026-01-31T06:00:00Z", "2026-02-01"),
        ("", None, ""),
        ("-- 2026/x +" + "1" * 99, None, "2026-x-" + "1" * 56),
        ("ü", None, ""),
    ]:
        workflow = {"parameters": {"logical-date": given}, "scheduledTime": scheduled}
        assert evaluate(label, {"workflow": workflow}) == date


def test_ids_that_are_no_labels_have_a_near_one() -> None:
    with DAG("x" * 100, schedule=None) as dag:
        one_task(task_id="_work_")
    (manifest,) = exported(dag)
    assert manifest["spec"]["workflowMetadata"]["annotations"] == {"raynode/dag-id": "x" * 100}
    assert len(manifest["spec"]["workflowMetadata"]["labels"]["raynode/dag-id"]) == 63
    label = templates(manifest)["work"]["metadata"]["labels"]["raynode/task-id"]
    assert re.fullmatch("work-[0-9a-f]{6}", label)


def test_a_pod_says_why_it_ends_where_kubernetes_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(outcome, "TERMINATION_LOG", log)
    outcome.tell("there is no such file outside of a pod")
    assert not log.exists()
    log.touch()
    outcome.tell("upstream_failed" + "x" * 5000)
    assert log.read_text().startswith("upstream_failed") and len(log.read_text()) == 2000


def test_an_export_without_a_service_account_says_what_it_needs() -> None:
    with DAG("account", schedule=None) as dag:
        one_task()
    settings = {"image": "i", "catalog": "s3://bucket/c"}
    (warning,) = export_dag(dag, Path("dags/x.py"), settings=settings).warnings
    assert "create and patch workflowtaskresults" in warning
    assert export_dag(dag, Path("dags/x.py"), settings={**settings, "service_account": "a"}).warnings == ()


@pytest.mark.parametrize(
    ("options", "strategy"),
    [
        ({"retries": 0}, None),
        ({"retries": 2, "retry_delay": timedelta(0)}, ("2", "0s", "1", "")),
        ({"retries": 2}, ("2", "300s", "1", "")),
        ({"retries": 2, "retry_delay": timedelta(minutes=1)}, ("2", "60s", "1", "")),
        (
            {
                "retries": 3,
                "retry_delay": timedelta(seconds=1.5),
                "retry_exponential_backoff": True,
                "max_retry_delay": timedelta(hours=1),
            },
            ("3", "2s", "2", "3600s"),
        ),
    ],
)
def test_retries(options: dict[str, Any], strategy: tuple[str, ...] | None) -> None:
    with DAG("retries", schedule=None) as dag:
        one_task(**options)
    (manifest,) = exported(dag)
    found = pod(manifest).get("retryStrategy")
    if strategy is None:
        assert found is None
        assert "--retries={{retries}}" not in pod(manifest)["script"]["command"]
        return
    assert templates(manifest).keys() == {"dag", "task-with-retries"}
    assert found["retryPolicy"] == "Always"
    assert found["expression"] == "!(lastRetry.exitCode in ['100', '101', '102'])"
    assert (found["limit"], *found["backoff"].values()) == strategy
    assert "--retries={{retries}}" in pod(manifest)["script"]["command"]


def test_retries_of_the_settings_are_laid_over_the_dags() -> None:
    with DAG("retries", schedule=None) as dag:
        one_task(retries=1, retry_delay=timedelta(minutes=1))
    (manifest,) = exported(dag, settings={**SETTINGS, "retry_strategy": {"limit": 4, "backoff": {"factor": 3}}})
    template = pod(manifest)
    assert template["retryStrategy"]["limit"] == "4"
    assert template["retryStrategy"]["backoff"] == {"duration": "60s", "factor": "3", "cap": ""}
    assert "expression" in template["retryStrategy"]
    assert "--max-retries=4" in template["script"]["command"]


def test_time_limits() -> None:
    with DAG("limits", schedule=None, dagrun_timeout=timedelta(hours=2)) as dag:
        one_task(execution_timeout=timedelta(minutes=1))
    (manifest,) = exported(dag)
    assert manifest["spec"]["activeDeadlineSeconds"] == 7200
    assert pod(manifest)["activeDeadlineSeconds"] == str(60 + 300)
    assert templates(manifest).keys() == {"dag", "task-with-timeout"}


def test_pools_and_limits_are_semaphores_with_their_sizes() -> None:
    with DAG("limits", schedule=None, max_active_tasks=3, max_active_runs=2) as dag:
        one_task(pool="gpu_pool", max_active_tis_per_dag=4)
    manifest, config_map = exported(dag, settings={**SETTINGS, "pools": {"gpu_pool": 2, "unused": 9}})
    assert manifest["spec"]["parallelism"] == 3
    assert config_map["kind"] == "ConfigMap"
    assert config_map["data"] == {"gpu-pool": "2", "max-active-work": "4", "max-active-runs": "2"}
    name = config_map["metadata"]["name"]
    keys = templates(manifest)["work"]["synchronization"]["semaphores"]
    assert keys == [{"configMapKeyRef": {"name": name, "key": key}} for key in ("gpu-pool", "max-active-work")]
    assert manifest["spec"]["synchronization"]["semaphores"] == [
        {"configMapKeyRef": {"name": name, "key": "max-active-runs"}}
    ]


def test_callbacks_of_the_dag_are_the_exit_handler() -> None:
    with DAG("callbacks", schedule=None, on_failure_callback=print) as dag:
        one_task()
    (manifest,) = exported(dag)
    assert manifest["spec"]["onExit"] == "on-exit"
    container = templates(manifest)["on-exit"]["script"]
    assert container["command"] == ["raynode", "argo", "run-callbacks"]
    assert "--status={{workflow.status}}" in container["args"]


def test_tasks_that_need_the_same_pod_share_a_template() -> None:
    with DAG("shared", schedule=None) as dag:

        @task
        def work() -> int:
            return 1

        plain = [work.override(task_id=f"work_{number}")() for number in range(5)]
        plain >> work.override(task_id="patient", retries=2)() >> EmptyOperator(task_id="end")
    settings = {**SETTINGS, "tasks": {"work_3": {"resources": {"cpu": 4}}}}
    (manifest,) = exported(dag, settings=settings)
    found = templates(manifest)
    assert set(found) == {"dag", "task", "work-3", "task-with-retries", "plan", "empty"}
    assert found["work-3"]["script"]["resources"]["limits"] == {"cpu": "4"}
    used = {each["name"]: each["template"] for each in found["dag"]["dag"]["tasks"]}
    assert used == {
        **{f"work-{number}": "task" for number in (0, 1, 2, 4)},
        "work-3": "work-3",
        "patient-order": "plan",
        "patient": "task-with-retries",
        "end": "empty",
        "all-done": "empty",
    }


def test_a_pod_override_is_a_patch() -> None:
    override = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {
            "containers": [{"name": "base", "resources": {"limits": {"cpu": "2"}}}],
            "nodeSelector": {"disk": "ssd"},
        },
    }
    with DAG("override", schedule=None) as dag:
        one_task(executor_config={"pod_override": override})
    (manifest,) = exported(dag)
    template = templates(manifest)["work"]
    assert template["metadata"] == {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    assert json.loads(template["podSpecPatch"]) == {
        "containers": [{"name": "main", "resources": {"limits": {"cpu": "2"}}}],
        "nodeSelector": {"disk": "ssd"},
    }


@pytest.mark.parametrize("settings", [{}, {"pod_spec_patch": {"hostname": "{{workflow.name}}"}}])
def test_what_stands_in_a_pod_override_is_none_of_argos(settings: dict[str, Any]) -> None:
    """A tag in the settings is Argo's, and stays."""
    env = [{"name": "A", "value": "{{workflow.name}} {{ ds }} {{"}]
    with DAG("override", schedule=None) as dag:
        one_task(executor_config={"pod_override": {"spec": {"containers": [{"name": "base", "env": env}]}}})
    (manifest,) = exported(dag, settings={**SETTINGS, **settings})
    patch = templates(manifest)["work"]["podSpecPatch"]
    assert json.loads(patch)["containers"] == [{"name": "main", "env": env}]
    assert ("{{" in patch) == bool(settings)


def test_texts_that_are_not_kubernetes_arrive_as_they_are() -> None:
    """What Kubernetes would read as the value of a variable: in paths, the catalog, a repository."""
    git = {"repository": "https://x/$(A).git", "revision": "a$$b", "path": "dags/$(A)"}
    settings = {"catalog": "s3://bucket/$(HOME)", "dag_source": {"git": git}, "configuration_file": "/etc/$(A).yaml"}
    with DAG("dollars", schedule=None) as dag:
        one_task()
    (manifest,) = exported(dag, settings=settings)
    template = pod(manifest)
    assert {"name": "AIRFLOW__RAYNODE__CATALOG", "value": "s3://bucket/$$(HOME)"} in template["script"]["env"]
    assert "--configuration-file=/etc/$$(A).yaml" in template["script"]["args"]
    assert any(each.startswith("--pipeline-file=") and "/$$(A)/" in each for each in template["script"]["args"])
    assert template["initContainers"][0]["args"][:2] == ["https://x/$$(A).git", "a$$$$b"]


def test_a_pod_override_of_the_kubernetes_client_is_the_same() -> None:
    client = pytest.importorskip("kubernetes.client", reason="the package kubernetes is not installed")
    container = client.V1Container(name="base", env=[client.V1EnvVar(name="A", value="b")])
    pod = client.V1Pod(spec=client.V1PodSpec(containers=[container], host_network=True))
    with DAG("override", schedule=None) as dag:
        one_task(executor_config={"pod_override": pod})
    (manifest,) = exported(dag)
    assert json.loads(templates(manifest)["work"]["podSpecPatch"]) == {
        "containers": [{"name": "main", "env": [{"name": "A", "value": "b"}]}],
        "hostNetwork": True,
    }


def test_allowed_features_become_warnings() -> None:
    with DAG("pools", schedule=None) as dag:
        one_task(pool="gpus", priority_weight=3)
    with pytest.raises(RefusedError, match=r"pools: \{gpus: 4\}"):
        exported(dag)
    export = export_dag(dag, Path("x.py"), settings=SETTINGS, allow=["pool"])
    assert "work: pool: the task runs without the pool's limit" in export.warnings
    assert any("priority_weight" in each for each in export.warnings)


def test_a_ray_job_between_fan_out_and_execution() -> None:
    from airflow_provider_raynode import ray_node

    config = {
        "ray_cluster": {
            "kuberay": {
                "image": "ray-with-raynode:1",
                "head": {"num_cpus": 2},
                "worker_groups": [
                    {"name": "gpu", "replicas": 1, "max_replicas": 4, "num_gpus": 1, "node_selector": {"gpu": "a"}}
                ],
                "volumes": [{"name": "catalog", "persistentVolumeClaim": {"claimName": "c"}}],
                "volume_mounts": [{"name": "catalog", "mountPath": "/catalog"}],
            }
        },
        "ray_tune": {"metric": "m", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}},
    }

    def train(x: float) -> dict[str, float]:
        return {"m": x}

    with DAG("ray_job", schedule=None) as dag:
        ray_node("search", python_callable=train, ray_config=config, default_args={"retries": 2})
    (manifest,) = exported(dag, ray="rayjob")
    found = templates(manifest)
    tasks = {each["name"]: each for each in found["dag"]["dag"]["tasks"]}
    assert list(tasks) == ["search-fan-out", "search-tune-rayjob", "search-tune", "search-fan-in"]
    assert tasks["search-tune-rayjob"]["depends"] == "search-fan-out.Succeeded"
    ended = "(search-tune-rayjob || !search-tune-rayjob)"
    assert tasks["search-tune"]["depends"] == f"search-fan-out && {ended}"
    resource = found["search-tune-rayjob"]["resource"]
    assert found["search-tune-rayjob"]["retryStrategy"]["limit"] == "2"
    assert "retryStrategy" not in found["tune"]
    job = yaml.safe_load(resource["manifest"])
    assert job["metadata"] == {
        "name": "{{inputs.parameters.job-name}}",
        "labels": {
            "workflows.argoproj.io/workflow": "{{workflow.name}}",
            "raynode/workflow-uid": "{{workflow.uid}}",
            "raynode/dag-id": "ray-job",
            "raynode/task": "search-tune",
        },
        "annotations": {"raynode/dag-id": "ray_job", "raynode/task-id": "search.tune"},
    }
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "{{inputs.parameters.spec-uri}}" in job["spec"]["entrypoint"]
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 1, 4)
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["volumeMounts"] == [{"name": "catalog", "mountPath": "/catalog"}]
    assert "runtimeEnvYAML" not in job["spec"]
    variables = {"A": "1"}
    config["ray_cluster"]["runtime_env"] = {"env_vars": variables, "working_dir": "s3://b/w.zip", "pip": ["numpy"]}
    with DAG("with_environment", schedule=None) as dag:
        ray_node("search", python_callable=train, ray_config=config)
    (manifest,) = exported(dag, ray="rayjob")
    job = yaml.safe_load(templates(manifest)["search-tune-rayjob"]["resource"]["manifest"])
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"]) == {
        "env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0", "A": "1"},
        "working_dir": "s3://b/w.zip",
        "pip": ["numpy"],
    }
    config["ray_cluster"]["runtime_env"] = {
        "env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGTERM"},
        "working_dir": str(Path(__file__).parent),
        "py_modules": [str(Path(__file__))],
        "excludes": ["*.bin"],
    }
    with DAG("cannot", schedule=None) as dag:
        ray_node("search", python_callable=train, ray_config=config, on_kill="detach")
    with pytest.raises(RefusedError) as refused:
        exported(dag, ray="rayjob")
    for part in (
        "runtime_env.working_dir: a RayJob uploads nothing",
        "runtime_env.py_modules[0]: a RayJob uploads nothing",
        "runtime_env.excludes: has no effect",
        "env_vars.RAY_JOB_STOP_SIGNAL: has no effect",
        "on_kill='detach' has no effect",
    ):
        assert part in str(refused.value)
    del config["ray_cluster"]
    with DAG("no_ray_job", schedule=None) as dag:
        ray_node("search", python_callable=train, ray_config=config)
    with pytest.raises(RefusedError, match=r"ray_config has no section ray_cluster\.kuberay"):
        exported(dag, ray="rayjob")


def test_two_exports_are_the_same_text(tmp_path: Path) -> None:
    """Sets are iterated over in another order in another process; the YAML must not show it."""
    texts = set()
    for seed in ("1", "2"):
        dag_file = str(ROOT / "tests/equality/constructs/skips.py")
        command = [sys.executable, "-m", "airflow_provider_raynode.cli", "argo", "export", dag_file]
        done = subprocess.run(
            [*command, "--dag-id", "rules_in_use"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        texts.add(done.stdout)
    assert len(texts) == 1


DAG_FILE = """
from airflow.sdk import DAG, task
with DAG("{dag_id}", schedule={schedule!r}) as dag:
    @task(depends_on_past={past})
    def work():
        return 1
    work()
"""


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "d.py", tmp_path / "out.yaml"
    path.write_text(DAG_FILE.format(dag_id="one", schedule=None, past=False))
    assert main(["argo", "export", str(path), "-o", str(output)]) == 0
    assert yaml.safe_load(output.read_text())["metadata"]["name"] == "one"
    assert main(["argo", "lint", str(output)]) == 0
    printed = capsys.readouterr()
    assert "catalog" in printed.err, "a warning: without a catalog the pods share nothing"
    assert "0 errors" in printed.out


def test_the_command_writes_nothing_for_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "d.py", tmp_path / "out.yaml"
    path.write_text(DAG_FILE.format(dag_id="one", schedule=None, past=True))
    assert main(["argo", "export", str(path), "-o", str(output)]) == 1
    assert not output.exists()
    assert "task work: depends-on-past: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x = 1", [], "there is no DAG in this file"),
        ("import nothing_like_this", [], "line 1: ModuleNotFoundError: No module named 'nothing_like_this'"),
        (None, ["--allow", "everything"], "--allow everything: allowed are: asset-outlets"),
        (None, ["--allow", "catch-up"], "--allow catch-up: did you mean 'catchup'? allowed are: asset-outlets"),
        (None, ["--dag-id", "two"], "holds no DAG 'two'; it has: one"),
        (None, ["--dag-id", "one_"], "holds no DAG 'one_', did you mean 'one'? it has: one"),
        (None, ["--settings", "/nowhere/argo.yaml"], "the file does not exist"),
        (None, ["-o", "/nowhere/out.yaml"], "/nowhere/out.yaml: cannot be written"),
    ],
)
def test_wrong_input_is_one_clear_line(
    text: str | None, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.py"
    path.write_text(text or DAG_FILE.format(dag_id="one", schedule=None, past=False))
    assert main(["argo", "export", str(path), *options]) == 2
    assert message in capsys.readouterr().err


def test_settings_that_name_no_task_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.py"
    path.write_text(DAG_FILE.format(dag_id="one", schedule=None, past=False))
    with pytest.raises(ValueError, match="did you mean 'work'"):
        export_dag_file(path, settings={"tasks": {"wrok": {"image": "x"}}})


def test_airflow_has_the_same_commands() -> None:
    from airflow_provider_raynode.cli_definition import get_raynode_cli_commands

    (group,) = get_raynode_cli_commands()
    (argo,) = [each for each in group.subcommands if each.name == "argo"]
    commands = {each.name: each for each in argo.subcommands}
    assert set(commands) == {"export", "lint", "run-task", "run-callbacks", "end-ray-jobs", "make-way"}
    flags = {flag for argument in commands["export"].args for flag in argument.flags}
    assert {"dag_file", "--settings", "--kind", "--allow", "-o"} <= flags
