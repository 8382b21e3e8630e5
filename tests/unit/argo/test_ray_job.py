"""`--ray rayjob`: the RayJob of a Ray node, key by key, and what keeps a node from being one."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from argo_simulator import resources
from kubernetes_stand_in import submitted_environment

from airflow_provider_raynode import ray_node
from airflow_provider_raynode.argo.checks import RefusedError
from airflow_provider_raynode.argo.export import Export, export_dag
from airflow_provider_raynode.argo.lint.fields import check_object
from airflow_provider_raynode.argo.lint.finding import Findings
from airflow_provider_raynode.exceptions import ConfigError

S3 = {"catalog": "s3://bucket/raynode"}
CLAIM = [{"name": "catalog", "persistentVolumeClaim": {"claimName": "raynode-catalog"}}]
MOUNT = [{"name": "catalog", "mountPath": "/catalog"}]
ON_A_VOLUME = {
    "catalog": "/catalog",
    "volumes": {"catalog": {"pvc": "raynode-catalog"}},
    "volume_mounts": {"/catalog": "catalog"},
}
# Fields of ray.io/v1 in KubeRay 1.6 (rayjob_types.go, raycluster_types.go), each with the kind of its value. A field
# that is not here the API server drops without a word.
RAY_JOB = {
    "activeDeadlineSeconds": int, "backoffLimit": int, "rayClusterSpec": dict, "submitterPodTemplate": dict,
    "metadata": dict, "clusterSelector": dict, "submitterConfig": dict, "managedBy": str, "deletionStrategy": dict,
    "entrypoint": str, "runtimeEnvYAML": str, "jobId": str, "submissionMode": str, "entrypointResources": str,
    "entrypointNumCpus": float, "entrypointNumGpus": float, "ttlSecondsAfterFinished": int,
    "preRunningDeadlineSeconds": int, "shutdownAfterJobFinishes": bool, "suspend": bool,
}  # fmt: skip
RAY_CLUSTER = {
    "upgradeStrategy": dict, "authOptions": dict, "suspend": bool, "managedBy": str, "autoscalerOptions": dict,
    "headServiceAnnotations": dict, "enableInTreeAutoscaling": bool, "gcsFaultToleranceOptions": dict,
    "headGroupSpec": dict, "rayVersion": str, "workerGroupSpecs": list,
}  # fmt: skip
HEAD = {
    "template": dict, "headService": dict, "enableIngress": bool, "resources": dict, "labels": dict,
    "rayStartParams": dict, "serviceType": str,
}  # fmt: skip
WORKERS = {
    "suspend": bool, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int,
    "idleTimeoutSeconds": int, "resources": dict, "labels": dict, "rayStartParams": dict, "template": dict,
    "scaleStrategy": dict, "numOfHosts": int,
}  # fmt: skip


def train(x: float) -> dict[str, float]:
    return {"m": x}


def config(kuberay: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "ray_cluster": {"kuberay": {"image": "ours:1", **(kuberay or {})}, **cluster},
        "ray_tune": {"metric": "m", "mode": "max", "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}}},
    }


def export(ray_config: dict[str, Any] | str, settings: Any = None, dag_id: str = "a_dag", **node: Any) -> Export:
    with DAG(dag_id, schedule=None) as dag:
        ray_node("search", python_callable=train, ray_config=ray_config, **node)
    return export_dag(dag, Path("dags/x.py"), settings=settings or S3, ray="rayjob")


def template_of(exported: Export) -> dict[str, Any]:
    found = {each["name"]: each for each in next(iter(yaml.safe_load_all(exported.text)))["spec"]["templates"]}
    return dict(found["search-tune-rayjob"])


def ray_job(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return dict(yaml.safe_load(template_of(export(*args, **kwargs))["resource"]["manifest"]))


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(RefusedError) as refused:
        export(*args, **kwargs)
    return str(refused.value)


def pods(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]
    yield from (each["template"] for each in cluster["workerGroupSpecs"])
    yield job["spec"]["submitterPodTemplate"]


def check(fields: dict[str, Any], known: dict[str, type]) -> None:
    for key, value in fields.items():
        assert key in known, f"KubeRay has no {key}"
        assert isinstance(value, known[key]), f"{key}: {value!r}"


class Found(Findings):
    def __init__(self) -> None:
        super().__init__("", lambda _: 0)

    def _add(self, path: Any, message: str, severity: str) -> None:
        raise AssertionError(f"{path}: {message}")


FULL = {
    "image": "registry/ray:1",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry"],
    "service_account": "ray",
    "head": {"num_cpus": 2, "node_selector": {"pool": "cpu"}, "tolerations": [{"key": "cpu", "operator": "Exists"}]},
    "worker_groups": [{"name": "gpu", "replicas": 1, "max_replicas": 4, "num_gpus": 1, "num_cpus": 8}],
    "env": {"A": "1"},
    "env_from": [{"secretRef": {"name": "storage"}}],
    "volumes": CLAIM,
    "volume_mounts": MOUNT,
    "pod_labels": {"team": "a"},
    "pod_annotations": {"sidecar.istio.io/inject": "false"},
    "priority_class_name": "high",
    "security_context": {"runAsUser": 1000, "fsGroup": 100},
    "container_security_context": {"allowPrivilegeEscalation": False},
    "pre_running_deadline_seconds": 900,
    "active_deadline_seconds": 7200,
    "ttl_seconds_after_finished": 60,
}


def test_the_whole_job_has_fields_of_kuberay_only() -> None:
    job = ray_job(config(FULL, runtime_env={"env_vars": {"B": "2"}}), ON_A_VOLUME)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    check(spec, RAY_JOB)
    check(spec["rayClusterSpec"], RAY_CLUSTER)
    check(spec["rayClusterSpec"]["headGroupSpec"], HEAD)
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        check(group, WORKERS)
    assert spec["submitterConfig"] == {"backoffLimit": 2}
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["rayVersion"] == "2.60.0", "KubeRay wants it beside tokens"
    assert (spec["preRunningDeadlineSeconds"], spec["activeDeadlineSeconds"]) == (900, 7200)
    assert (spec["shutdownAfterJobFinishes"], spec["ttlSecondsAfterFinished"]) == (True, 60)
    for pod in pods(job):
        check_object("PodSpec", pod["spec"], (), Found())
        assert pod["metadata"] == {"labels": {"team": "a"}, "annotations": {"sidecar.istio.io/inject": "false"}}
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["spec"]["serviceAccountName"] == "ray"
        assert pod["spec"]["priorityClassName"] == "high"
        assert pod["spec"]["securityContext"]["fsGroup"] == 100
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry/ray:1"
        assert container["imagePullPolicy"] == "Always"
        assert container["securityContext"] == {"allowPrivilegeEscalation": False}


def test_the_submitter_runs_where_the_head_runs_and_ends() -> None:
    submitter = ray_job(config(FULL), ON_A_VOLUME)["spec"]["submitterPodTemplate"]["spec"]
    assert submitter["nodeSelector"] == {"pool": "cpu"}
    assert submitter["tolerations"] == [{"key": "cpu", "operator": "Exists"}]
    assert submitter["restartPolicy"] == "Never", "a Job's pod has to say so"
    assert submitter["activeDeadlineSeconds"] == 7200
    (container,) = submitter["containers"]
    assert "command" not in container, "KubeRay writes it"
    assert "env" not in container
    assert "envFrom" not in container, "it needs no secrets"
    own = {"node_selector": {}, "tolerations": [], "num_cpus": 2, "memory": 1_000_000_000, "backoff_limit": 0}
    job = ray_job(config({**FULL, "submitter": own}), ON_A_VOLUME)["spec"]
    submitter = job["submitterPodTemplate"]["spec"]
    assert not {"nodeSelector", "tolerations"} & set(submitter)
    assert submitter["containers"][0]["resources"]["requests"] == {"cpu": "2", "memory": "1000000000"}
    assert job["submitterConfig"] == {"backoffLimit": 0}


def test_tokens_can_be_switched_off_and_the_mode_is_stated() -> None:
    job = ray_job(config({"token_authentication": False, "env": {"A": "1"}}))
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "disabled"}
    for pod in pods(job):
        assert {"name": "RAY_AUTH_MODE", "value": "disabled"} in pod["spec"]["containers"][0]["env"]


@pytest.mark.parametrize(
    ("node", "kuberay", "active", "pre_running"),
    [
        ({}, {}, 86_400, 1_800),
        ({"default_args": {"execution_timeout": timedelta(minutes=10)}}, {}, 660, 600),
        ({"default_args": {"execution_timeout": timedelta(hours=2)}}, {}, 7_260, 1_800),
        ({"default_args": {"execution_timeout": timedelta(days=9)}}, {}, 86_400, 1_800),
        ({"default_args": {"execution_timeout": timedelta(hours=2)}}, {"active_deadline_seconds": 60}, 60, 60),
        ({"startup_timeout_s": 300.5}, {}, 86_400, 301),
        ({"startup_timeout_s": 300}, {"pre_running_deadline_seconds": 900}, 86_400, 900),
        ({"run_timeout_s": 600}, {}, 1_800 + 600 + 60, 1_800),
        ({"run_timeout_s": 600, "startup_timeout_s": 100}, {}, 100 + 600 + 60, 100),
    ],
)
def test_times(node: Any, kuberay: Any, active: int, pre_running: int) -> None:
    spec = ray_job(config(kuberay), **node)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) == (active, pre_running)
    assert spec["entrypoint"].endswith(f" --deadline {active}"), "the driver ends before KubeRay ends it"
    assert spec["submitterPodTemplate"]["spec"]["activeDeadlineSeconds"] == active


def test_the_settings_timeout_wins_over_the_dag() -> None:
    settings = {**S3, "tasks": {"search.tune": {"timeout": "30m"}}}
    spec = ray_job(config(), settings, default_args={"execution_timeout": timedelta(hours=2)})["spec"]
    assert spec["activeDeadlineSeconds"] == 1_860


def test_retries_wait_and_slots_are_held() -> None:
    retried = {
        "retries": 3,
        "retry_delay": timedelta(minutes=2),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "pool": "gpus",
        "max_active_tis_per_dag": 1,
    }
    template = template_of(export(config(), {**S3, "pools": {"gpus": 2}}, default_args=retried))
    assert template["retryStrategy"] == {
        "limit": "3",
        "retryPolicy": "Always",
        "backoff": {"duration": "120s", "factor": "2", "cap": "600s"},
    }
    keys = [each["configMapKeyRef"]["key"] for each in template["synchronization"]["semaphores"]]
    assert keys == ["gpus", "max-active-search-tune"]
    assert "activeDeadlineSeconds" not in template, "its end would leave the RayJob"


def test_the_settings_place_the_pod_that_waits() -> None:
    settings = {
        **S3,
        "node_selector": {"pool": "small"},
        "tolerations": [{"operator": "Exists"}],
        "pod_labels": {"team": "a"},
        "security_context": {"runAsNonRoot": True},
        "priority_class_name": "low",
        "tasks": {"search.tune": {"retry_strategy": {"limit": 5}}},
    }
    exported = export(config(), settings)
    # What all pods have, the workflow says.
    spec = next(iter(yaml.safe_load_all(exported.text)))["spec"]
    assert spec["nodeSelector"] == {"pool": "small"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["podMetadata"]["labels"] == {"raynode/dag-id": "a_dag", "team": "a"}
    assert spec["securityContext"] == {"runAsNonRoot": True}
    assert spec["podPriorityClassName"] == "low"
    assert template_of(exported)["retryStrategy"]["limit"] == "5"


def test_kuberay_may_try_again_before_it_has_failed() -> None:
    resource = template_of(export(config()))["resource"]
    failed = resource["failureCondition"]
    assert failed == "status.jobDeploymentStatus in (Failed,ValidationFailed), status.jobStatus == STOPPED"
    assert yaml.safe_load(resource["manifest"])["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize(
    ("deployment", "job", "verdict"),
    [
        ("", "", ""),
        ("Initializing", "", ""),
        ("Running", "PENDING", ""),
        ("Running", "RUNNING", ""),
        ("Running", "SUCCEEDED", ""),  # the submitter still shows the log
        ("Running", "FAILED", ""),
        ("Retrying", "FAILED", ""),
        ("Suspended", "", ""),
        ("Complete", "SUCCEEDED", "Succeeded"),
        ("Complete", "STOPPED", "Failed"),
        ("Running", "STOPPED", "Failed"),
        ("Failed", "FAILED", "Failed"),
        ("Failed", "", "Failed"),  # the cluster did not start, the deadline, the submitter
        ("Failed", "RUNNING", "Failed"),
        ("ValidationFailed", "", "Failed"),
    ],
)
def test_argo_knows_kuberays_states(deployment: str, job: str, verdict: str) -> None:
    resource = template_of(export(config()))["resource"]
    assert resources.verdict(resource, {"status": {"jobDeploymentStatus": deployment, "jobStatus": job}}) == verdict


def substituted(manifest: str) -> dict[str, Any]:
    """What is left of a manifest once Argo has replaced its tags."""
    return dict(yaml.safe_load(re.sub(r"\{\{.*?\}\}", "x", manifest, flags=re.DOTALL)))


TEXTS = [
    "{{workflow.name}}", "{{= sprig.now() }}", "a {{ b", "{{{x}}}", "}}{{", "$(HOME)", "$$", "$HOME", "it's \"so\"",
    "a\nb\n", " x ", "yes", "1", "", "größe", "#", "- a", "a: b", "\\u007b", "{", "%s",
    "{{x}} " + "a few words " * 20, "a few words " * 20, "words  apart " * 20 + "\n", "#" * 200, "a b: c " * 40,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_the_config_arrive_as_they_are(text: str, tmp_path: Path) -> None:
    kuberay = {
        "env": {"T": text},
        "pod_annotations": {"a": text},
        "volumes": [{"name": "v", "hostPath": {"path": f"/{text}"}}],
        "head": {"ray_start_params": {"x": text}},
    }
    given = {"env_vars": {"T": text}} if "$" not in text else {}
    # In a file: in a dict of the DAG braces are Airflow's template.
    (tmp_path / "ray.yaml").write_text(yaml.safe_dump(config(kuberay, runtime_env=given)))
    template = template_of(export(str(tmp_path / "ray.yaml")))
    spec = substituted(template["resource"]["manifest"])["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]
    entry = head["template"]["spec"]["containers"][0]["env"][0]
    # What the kubelet makes of it: $$ is $, and $(NAME) is not there any more.
    assert entry["value"].replace("$$", "\0").replace("$(", "!").replace("\0", "$") == text
    assert head["template"]["metadata"]["annotations"]["a"] == text
    assert head["template"]["spec"]["volumes"][0]["hostPath"]["path"] == f"/{text}"
    assert head["rayStartParams"]["x"] == text
    if given:
        assert yaml.safe_load(spec["runtimeEnvYAML"]) == given


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"env_vars": {"A": "$HOME"}}, "env_vars.A"),
        ({"env_vars": {"A": "`id`"}}, "env_vars.A"),
        ({"pip": ["git+https://${TOKEN}@host/x"]}, "pip[0]"),
        ({"env_vars": {"A": "\x7f"}}, "env_vars.A"),
        ({"env_vars": {"A": "\U000e0067"}}, "env_vars.A"),
    ],
)
def test_what_the_submitters_shell_would_change_is_refused(environment: Any, place: str) -> None:
    assert f"ray_cluster.runtime_env.{place}: holds" in refusal(config(runtime_env=environment))


@pytest.mark.parametrize(
    "text", [*(each for each in TEXTS if "$" not in each), "\x01\x1b\t\r", "\xad\u200b\u2028", "👩‍🔬", "!!x"]
)
def test_an_environment_comes_through_the_submitters_shell(text: str, tmp_path: Path) -> None:
    given = {"env_vars": {"T": text}, "pip": {"packages": [f"x{text}"]}}
    (tmp_path / "ray.yaml").write_text(yaml.safe_dump(config(runtime_env=given)))
    manifest = template_of(export(str(tmp_path / "ray.yaml")))["resource"]["manifest"]
    assert submitted_environment(substituted(manifest)) == given


def test_a_requirements_file_is_read_before_it_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\ngit+https://$TOKEN@host/x\n")
    assert "runtime_env.pip[1]: holds '$'" in refusal(config(runtime_env={"pip": str(tmp_path / "r.txt")}))


def test_names_and_labels_of_any_task_are_kubernetes() -> None:
    with DAG("Ein.Dag-" + "x" * 200, schedule=None) as dag:
        ray_node("S" * 190 + "_ö", python_callable=train, ray_config=config())
    exported = export_dag(dag, Path("x.py"), settings={**S3, "name": "short"}, ray="rayjob")
    (template,) = [each for each in yaml.safe_load(exported.text)["spec"]["templates"] if "resource" in each]
    metadata = yaml.safe_load(template["resource"]["manifest"])["metadata"]
    for name, value in metadata["labels"].items():
        if "{{" not in value:
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value), name
    assert metadata["annotations"]["raynode/task-id"].endswith("_ö.tune")


def test_the_job_waits_for_what_its_execution_task_waits_for() -> None:
    with DAG("more_upstream", schedule=None) as dag:
        ray_node("search", python_callable=train, ray_config=config())
        for name in ("first", "second"):
            EmptyOperator(task_id=name) >> dag.get_task("search.tune")
        EmptyOperator(task_id="before") >> dag.get_task("search.fan_out")
    exported = export_dag(dag, Path("x.py"), settings=S3, ray="rayjob")
    (entry,) = [each for each in yaml.safe_load(exported.text)["spec"]["templates"] if each["name"] == "dag"]
    (job,) = [each for each in entry["dag"]["tasks"] if each["name"] == "search-tune-rayjob"]
    assert job["depends"] == "search-fan-out.Succeeded && first && second"
    assert "tasks['first'].status == 'Succeeded'" in job["when"]
    assert job["when"].startswith("{{= tasks['search-fan-out'].outputs.parameters.state == 'success' && ")


def test_the_example_of_the_docs_can_be_exported(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/argo.md").read_text()
    ray, settings = re.findall(r"```yaml\n(.*?)```", text.split("\n### RayJobs\n")[1], flags=re.DOTALL)[:2]
    (tmp_path / "search.yaml").write_text(ray)
    (tmp_path / "argo.yaml").write_text(settings)

    def learn(learning_rate: float) -> dict[str, float]:
        return {"accuracy": learning_rate}

    with DAG("docs", schedule=None) as dag:
        ray_node("search", python_callable=learn, ray_config=str(tmp_path / "search.yaml"))
    exported = export_dag(dag, Path("x.py"), settings=str(tmp_path / "argo.yaml"), ray="rayjob")
    assert exported.warnings == ()
    assert "or newer, with KubeRay 1.6 or newer. Not to be edited" in exported.text
    job = yaml.safe_load(template_of(exported)["resource"]["manifest"])
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"] == {"pool": "gpu"}


# -- the catalog -------------------------------------------------------------------------------------------------------


def test_a_volume_per_run_is_refused() -> None:
    message = refusal(config(), {"image": "x"})
    assert "each run claims a volume of its own for the catalog, which no RayJob can mount" in message
    assert "catalog: s3://bucket/prefix" in message
    assert "Or --allow rayjob-catalog" in message
    own = config()
    own["catalog"] = {"uri": "s3://other/prefix"}
    assert export(own, {"image": "x"}).text, "the node's own catalog is elsewhere"


@pytest.mark.parametrize(
    ("kuberay", "message"),
    [
        ({}, "ray_cluster.kuberay.volume_mounts mounts no volume there (it mounts: nothing)"),
        (
            {"volumes": CLAIM, "volume_mounts": [{"name": "catalog", "mountPath": "/catalog2"}]},
            "(it mounts: /catalog2)",
        ),
        ({"volumes": [{"name": "catalog", "emptyDir": {}}], "volume_mounts": MOUNT}, "an emptyDir is each pod's own"),
        ({"volumes": CLAIM, "volume_mounts": [{**MOUNT[0], "readOnly": True}]}, "cannot be written to"),
        ({"volumes": [{"name": "catalog", "configMap": {"name": "c"}}], "volume_mounts": MOUNT}, "cannot be written"),
    ],
)
def test_a_folder_that_the_cluster_does_not_mount_is_refused(kuberay: Any, message: str) -> None:
    found = refusal(config(kuberay), ON_A_VOLUME)
    assert "search.fan_out: rayjob-catalog: the catalog is /catalog" in found
    assert message in found


@pytest.mark.parametrize("uri", ["memory://x", "relative/path", "file://relative"])
def test_a_catalog_of_one_pod_only_is_refused(uri: str) -> None:
    assert "rayjob-catalog" in refusal(config(), {"env": {"AIRFLOW__RAYNODE__CATALOG": uri}})


def test_a_catalog_that_a_shell_would_read_otherwise_is_refused() -> None:
    assert "would not reach the RayJob's command" in refusal(config(), {"catalog": "s3://bucket/it's"})


@pytest.mark.parametrize("catalog", ["/catalog", "/catalog/", "/catalog/deep/er", "file:///catalog/x"])
def test_a_folder_on_a_mounted_volume_is_taken(catalog: str) -> None:
    settings = {**ON_A_VOLUME, "catalog": catalog}
    exported = export(config({"volumes": CLAIM, "volume_mounts": MOUNT}), settings)
    assert not [each for each in exported.warnings if "catalog" in each and "search" in each]


@pytest.mark.parametrize(
    ("volume", "mount", "told"),
    [
        ({"persistentVolumeClaim": {"claimName": "other"}}, {}, "persistentVolumeClaim other"),
        (CLAIM[0], {"subPath": "a"}, "persistentVolumeClaim raynode-catalog, /a in it"),
        ({"hostPath": {"path": "/x"}}, {}, "a hostPath is one folder only where all pods run on one node"),
    ],
)
def test_another_volume_at_the_same_path_is_told(volume: Any, mount: Any, told: str) -> None:
    kuberay = {"volumes": [{"name": "catalog", **volume}], "volume_mounts": [{**MOUNT[0], **mount}]}
    assert any(told in each for each in export(config(kuberay), ON_A_VOLUME).warnings)


def test_a_catalog_that_the_export_does_not_see_is_told() -> None:
    for settings in ({"env_from": [{"config_map": "c"}]}, {"configuration_file": "/etc/raynode.yaml"}):
        assert any(
            "whether the RayJob reaches it was not checked" in each for each in export(config(), settings).warnings
        )


def test_a_nodes_own_folder_that_the_tasks_do_not_mount_is_told() -> None:
    own = config({"volumes": CLAIM, "volume_mounts": MOUNT})
    own["catalog"] = {"uri": "/catalog"}
    assert any("the settings mount no volume there" in each for each in export(own, S3).warnings)


def test_credentials_of_the_storage_that_the_cluster_lacks_are_told() -> None:
    settings = {**S3, "secrets": {"AWS_SECRET_ACCESS_KEY": {"name": "s3", "key": "k"}}, "env": {"AWS_REGION": "eu"}}
    told = [each for each in export(config(), settings).warnings if "AWS_SECRET_ACCESS_KEY" in each]
    assert told
    assert "AWS_REGION" in told[0]
    assert "env_from" in told[0]
    for kuberay in (
        {"env_from": [{"secretRef": {"name": "s3"}}]},
        {"env": {"AWS_REGION": "e", "AWS_SECRET_ACCESS_KEY": ""}},
    ):
        assert not [each for each in export(config(kuberay), settings).warnings if "AWS" in each]
    through = {**S3, "env_from": [{"secret": "s3", "all_pods": True}]}
    assert any("take variables from s3" in each for each in export(config(), through).warnings)


# -- what does not reach a RayJob --------------------------------------------------------------------------------------


def test_settings_of_the_pod_that_collects_are_told() -> None:
    settings = {**S3, "tasks": {"search.tune": {"resources": {"cpu": 8}, "node_selector": {"gpu": "a"}}}}
    (told,) = [each for each in export(config(), settings).warnings if each.startswith("search.tune:")]
    assert "resources, node_selector of the settings" in told
    assert "worker_groups" in told
    from kubernetes.client import models

    override = models.V1Pod(spec=models.V1PodSpec(containers=[models.V1Container(name="base", image="x")]))
    told_too = export(config(), default_args={"executor_config": {"pod_override": override}}).warnings
    assert any("search.tune: executor_config: of the pod that collects" in each for each in told_too)
    called = {"on_retry_callback": print, "retries": 1}
    assert any(
        "search.tune: on_retry_callback: nothing is called" in each
        for each in export(config(), default_args=called).warnings
    )


@pytest.mark.parametrize(
    ("kuberay", "message"),
    [
        ({"volumes": [{"name": "a", "nfs": {"server": "x"}}]}, "kuberay.volumes[0].nfs: path is missing"),
        ({"tolerations": []}, "kuberay.tolerations: unknown key"),
        ({"head": {"tolerations": [{"kee": "a"}]}}, "kuberay.head.tolerations[0].kee: unknown key 'kee'"),
        ({"env_from": [{"secret": "x"}]}, "kuberay.env_from[0].secret: unknown key"),
        ({"security_context": {"runAsUser": "1000"}}, "kuberay.security_context.runAsUser"),
        ({"volume_mounts": [{"name": "a", "mountPath": "/a"}]}, "there is no volume 'a'"),
        ({"ray_version": "2.55.0"}, "kuberay.ray_version: it is Ray 2.55.0, this provider supports Ray 2.60"),
        ({"ray_version": "latest"}, "'latest' is not a version of Ray"),
        ({"image": "rayproject/ray:2.59.0-py311"}, "has Ray 2.59.0, but ray_version is 2.60.0"),
        ({"env": {"RAY_AUTH_MODE": "disabled"}}, "kuberay.env.RAY_AUTH_MODE: is set by token_authentication"),
        ({"env": {"RAY_REDIS_ADDRESS": "x"}}, "KubeRay refuses it"),
        ({"env": {"RAY_enable_autoscaler_v2": "1"}}, "KubeRay refuses it where no worker group"),
        ({"head": {"ray_start_params": {"labels": "a=b"}}}, "kuberay.head.ray_start_params.labels: KubeRay refuses it"),
        ({"image_pull_policy": "always"}, "kuberay.image_pull_policy: 'always' is not allowed, did you mean 'Always'?"),
        ({"service_account": "Ray"}, "kuberay.service_account: 'Ray'"),
        ({"image_pull_secrets": ["a_b"]}, "kuberay.image_pull_secrets[0]: 'a_b'"),
        ({"pod_labels": {"team": "a b"}}, "kuberay.pod_labels.team"),
        ({"head": {"node_selector": {"a b": "c"}}}, "kuberay.head.node_selector"),
        ({"env": {"1A": "x"}}, "'1A' is not a name of an environment variable"),
        ({"active_deadline_seconds": 2**31}, "kuberay.active_deadline_seconds: 2147483648 is above 2147483647"),
        ({"backoff_limit": 2}, "kuberay.backoff_limit: cannot be said here: `retries` of the node's tasks"),
    ],
)
def test_what_kuberay_or_kubernetes_would_refuse_is_refused(kuberay: Any, message: str) -> None:
    try:
        found = refusal(config(kuberay))
    except ConfigError as error:
        found = str(error)
    assert message in found


def test_a_trial_that_no_pod_has_room_for_is_refused() -> None:
    wide = config({"worker_groups": [{"name": "w", "num_cpus": 3.5}]})
    wide["default_resources"] = {"num_cpus": 4}
    assert export(wide).text, "Ray is told 4 CPUs"
    for asked, told in (
        ({"num_cpus": 5}, "a trial needs 5 CPUs on one node"),
        ({"num_gpus": 1}, "a trial needs 1 GPU"),
    ):
        found = refusal({**copy.deepcopy(wide), "default_resources": asked})
        assert told in found
        assert "default_resources" in found
    told = config({"head": {"ray_start_params": {"num-cpus": "16"}}})
    told["default_resources"] = {"num_cpus": 9}
    assert export(told).text


def test_workers_without_pods_need_no_autoscaler() -> None:
    cluster = ray_job(config({"worker_groups": [{"name": "none", "replicas": 0}]}))["spec"]["rayClusterSpec"]
    assert "enableInTreeAutoscaling" not in cluster
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, 0)
