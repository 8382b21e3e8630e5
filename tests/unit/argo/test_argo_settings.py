"""The settings file: every key reaches its field of Kubernetes or Argo, and overrides merge field by field."""
# ruff: noqa: E501  one case per line

from __future__ import annotations

import base64
import json
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from settings_cases import loaded

from airflow_provider_raynode.argo.lint.fields import check_object
from airflow_provider_raynode.argo.lint.finding import Findings
from airflow_provider_raynode.argo.settings import ArgoSettings, PodSettings
from airflow_provider_raynode.argo.settings.pod import PodKeys, PodOverrides
from airflow_provider_raynode.argo.settings_reference import reference
from airflow_provider_raynode.exceptions import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SECRET = {"name": "keys", "key": "token"}


def pod(**settings: Any) -> PodSettings:
    return loaded(settings).pod_for("t", ())


def proven(kind: str, data: Any) -> Any:
    findings = Findings("settings", lambda _: 0)
    check_object(kind, data, (), findings, patch=kind == "WorkflowSpec")
    assert not findings.all()
    return data


# -- every key ---------------------------------------------------------------------------------------------------------

# fmt: off
CONTAINER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"image": "dags:1"}, {"image": "dags:1"}),
    ({"image_pull_policy": "Always"}, {"imagePullPolicy": "Always"}),
    ({"command": "raynode-dev"}, {"command": ["raynode-dev"]}),
    ({"command": ["uv", "run", "raynode"]}, {"command": ["uv", "run", "raynode"]}),
    ({"env": {"A": "1", "B": ""}}, {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}]}),
    ({"tasks": {"t": {"env": {"A": {"secret": SECRET}}}}}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": SECRET}}]}),
    ({"env": {"A": {"config_map": {**SECRET, "optional": True}}}},
     {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {**SECRET, "optional": True}}}]}),
    ({"env": {"A": {"field": "metadata.name"}}},
     {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
    ({"env": {"A": {"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}}},
     {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}),
    ({"tasks": {"t": {"env": [{"name": "A", "value": "{{workflow.name}}"}, {"name": "B", "valueFrom": {"secretKeyRef": SECRET}}]}}},
     {"env": [{"name": "A", "value": "{{workflow.name}}"}, {"name": "B", "valueFrom": {"secretKeyRef": SECRET}}]}),
    ({"secrets": {"A": {**SECRET, "all_pods": True}}}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": SECRET}}]}),
    ({"secrets": {"A": SECRET}, "tasks": {"t": {"secrets": ["A"]}}}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": SECRET}}]}),
    ({"tasks": {"t": {"secrets": {"A": SECRET}}}}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": SECRET}}]}),
    ({"env_from": [{"secret": "s", "prefix": "P_", "all_pods": True}, {"config_map": "c", "optional": True}]},
     {"envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "c", "optional": True}}]}),
    ({"tasks": {"t": {"env_from": [{"secretRef": {"name": "s"}}]}}}, {"envFrom": [{"secretRef": {"name": "s"}}]}),
    ({"resources": {"cpu": 2, "memory": "4Gi"}},
     {"resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}}),
    ({"resources": {"cpu": "500m", "limits": {"cpu": 2}}}, {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "2"}}}),
    ({"resources": {"cpu": 0.5}}, {"resources": {"requests": {"cpu": "0.5"}, "limits": {"cpu": "0.5"}}}),
    ({"resources": {"memory": 4e9}}, {"resources": {"requests": {"memory": "4000000000"}, "limits": {"memory": "4000000000"}}}),
    ({"resources": {"gpus": 2}}, {"resources": {"limits": {"nvidia.com/gpu": "2"}}}),
    ({"resources": {"gpus": 1, "gpu_resource": "amd.com/gpu"}}, {"resources": {"limits": {"amd.com/gpu": "1"}}}),
    ({"resources": {"requests": {"ephemeral-storage": "1Gi"}}}, {"resources": {"requests": {"ephemeral-storage": "1Gi"}}}),
    ({"volumes": {"d": {"empty_dir": None}}, "volume_mounts": {"/d": "d"}}, {"volumeMounts": [{"mountPath": "/d", "name": "d"}]}),
    ({"volumes": {"d": {"empty_dir": None}}, "volume_mounts": {"/d/": {"volume": "d", "read_only": True, "sub_path": "x"}}},
     {"volumeMounts": [{"mountPath": "/d", "name": "d", "readOnly": True, "subPath": "x"}]}),
    ({"volumes": {"d": {"empty_dir": None}}, "volume_mounts": [{"path": "/d", "volume": "d"}, {"mountPath": "/e", "name": "d"}]},
     {"volumeMounts": [{"mountPath": "/d", "name": "d"}, {"mountPath": "/e", "name": "d"}]}),
    ({"container_security_context": {"runAsUser": 1000}}, {"securityContext": {"runAsUser": 1000}}),
]
AFFINITY = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}}
TOLERATION = {"key": "gpu", "operator": "Exists"}
PROXY = {"image": "proxy:1", "ports": [{"containerPort": 80}]}
TEMPLATE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"volumes": {"d": {"pvc": "claim"}}}, {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "claim"}}]}),
    ({"volumes": {"d": {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}}},
     {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}}]}),
    ({"volumes": {"d": {"config_map": "c"}}}, {"volumes": [{"name": "d", "configMap": {"name": "c"}}]}),
    ({"volumes": {"d": {"secret": "s"}}}, {"volumes": [{"name": "d", "secret": {"secretName": "s"}}]}),
    ({"volumes": {"d": {"secret": {"secretName": "s", "defaultMode": 256}}}},
     {"volumes": [{"name": "d", "secret": {"secretName": "s", "defaultMode": 256}}]}),
    ({"volumes": {"d": {"empty_dir": {}}}}, {"volumes": [{"name": "d", "emptyDir": {}}]}),
    ({"volumes": {"d": {"empty_dir": "1Gi"}}}, {"volumes": [{"name": "d", "emptyDir": {"sizeLimit": "1Gi"}}]}),
    ({"volumes": {"d": {"host_path": "/d"}}}, {"volumes": [{"name": "d", "hostPath": {"path": "/d"}}]}),
    ({"volumes": {"d": {"nfs": {"server": "s", "path": "/p"}}}}, {"volumes": [{"name": "d", "nfs": {"server": "s", "path": "/p"}}]}),
    ({"volumes": [{"name": "d", "csi": {"driver": "x"}}]}, {"volumes": [{"name": "d", "csi": {"driver": "x"}}]}),
    ({"node_selector": {"disk": "ssd"}}, {"nodeSelector": {"disk": "ssd"}}),
    ({"tolerations": [TOLERATION]}, {"tolerations": [TOLERATION]}),
    ({"affinity": AFFINITY}, {"affinity": AFFINITY}),
    ({"retry_strategy": {"limit": 3, "policy": "OnError", "expression": "true",
                         "backoff": {"duration": 30, "factor": 2, "cap": "1h", "max_duration": "2h"}}},
     {"retryStrategy": {"limit": "3", "retryPolicy": "OnError", "expression": "true",
                        "backoff": {"duration": "30s", "factor": "2", "cap": "1h", "maxDuration": "2h"}}}),
    ({"timeout": 90}, {"activeDeadlineSeconds": 90}),
    ({"timeout": "1h30m"}, {"activeDeadlineSeconds": 5400}),
    ({"priority_class_name": "high"}, {"priorityClassName": "high"}),
    ({"security_context": {"fsGroup": 1}}, {"securityContext": {"fsGroup": 1}}),
    ({"init_containers": [{"name": "p", **PROXY}]}, {"initContainers": [{"name": "p", **PROXY}]}),
    ({"sidecars": {"p": PROXY}}, {"sidecars": [{"name": "p", **PROXY}]}),
    ({"pod_labels": {"team": "a"}, "pod_annotations": {"a/b": "any text"}},
     {"metadata": {"labels": {"team": "a"}, "annotations": {"a/b": "any text"}}}),
    ({"pod_spec_patch": {"terminationGracePeriodSeconds": 5}}, {"podSpecPatch": '{"terminationGracePeriodSeconds": 5}'}),
    ({"pod_spec_patch": "containers: [{name: main, tty: true}]"}, {"podSpecPatch": "containers: [{name: main, tty: true}]"}),
    ({"pod_spec_patch": "{priority: {{workflow.priority}}}"}, {"podSpecPatch": "{priority: {{workflow.priority}}}"}),
]
# What the workflow says where the settings say nothing.
USUAL = {"podGC": {"strategy": "OnPodSuccess", "deleteDelayDuration": "10m"}}
WORKFLOW: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"service_account": "raynode"}, {"serviceAccountName": "raynode"}),
    ({"scheduler_name": "volcano"}, {"schedulerName": "volcano"}),
    ({"automount_service_account_token": False, "executor_service_account": "argo"},
     {"automountServiceAccountToken": False, "executor": {"serviceAccountName": "argo"}}),
    ({"image_pull_secrets": ["a", "b"]}, {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}),
    ({"active_deadline_seconds": "2h"}, {"activeDeadlineSeconds": 7200}),
    ({"parallelism": 4}, {"parallelism": 4}),
    ({"priority": 0}, {"priority": 0}),
    ({"host_network": True}, {"hostNetwork": True}),
    ({"dns_policy": "Default"}, {"dnsPolicy": "Default"}),
    ({"pod_gc": "OnPodSuccess"}, {"podGC": {"strategy": "OnPodSuccess"}}),
    ({"pod_gc": "Never"}, {}),
    ({"pod_gc": {"strategy": "OnPodSuccess", "delete_delay_duration": 60, "label_selector": {"matchLabels": {"a": "b"}}}},
     {"podGC": {"strategy": "OnPodSuccess", "deleteDelayDuration": "60s", "labelSelector": {"matchLabels": {"a": "b"}}}}),
    ({"ttl_strategy": {"seconds_after_completion": 1, "seconds_after_success": 0, "seconds_after_failure": 3}},
     {"ttlStrategy": {"secondsAfterCompletion": 1, "secondsAfterSuccess": 0, "secondsAfterFailure": 3}}),
]
# fmt: on
ELSEWHERE = {"name", "namespace", "labels", "annotations", "catalog", "configuration_file", "dag_source", "pools"}
ELSEWHERE |= {"pools_config_map", "cron", "groups", "on_exit", "record_runs"}


@pytest.mark.parametrize(("said", "fields"), CONTAINER, ids=lambda each: json.dumps(each)[:60])
def test_key_of_the_container(said: dict[str, Any], fields: dict[str, Any]) -> None:
    defaults = {"image": "airflow-provider-raynode:latest", "imagePullPolicy": "IfNotPresent"}
    assert proven("Container", pod(**said).container_fields()) == {**defaults, **fields}


@pytest.mark.parametrize(("said", "fields"), TEMPLATE, ids=lambda each: json.dumps(each)[:60])
def test_key_of_the_template(said: dict[str, Any], fields: dict[str, Any]) -> None:
    assert proven("Template", pod(**said).template_fields()) == fields


@pytest.mark.parametrize(("said", "fields"), WORKFLOW, ids=lambda each: json.dumps(each)[:60])
def test_key_of_the_workflow(said: dict[str, Any], fields: dict[str, Any]) -> None:
    settings = loaded(said)
    usual = {} if "pod_gc" in said else USUAL
    assert proven("WorkflowSpec", settings.workflow_fields()) == {**usual, **fields}
    # What the workflow says for all pods is not said again in each template.
    assert settings.pod_for("t", ()).template_fields() == {}


def test_no_key_is_left_out() -> None:
    tried = {key for said, _ in [*CONTAINER, *TEMPLATE, *WORKFLOW] for key in said}
    assert set(ArgoSettings.model_fields) - tried == ELSEWHERE


def test_every_pod_key_may_stand_in_groups_and_tasks() -> None:
    assert set(PodOverrides.model_fields) == {*PodKeys.model_fields, "labels", "annotations", "secrets", "env_from"}
    for said, _ in [*CONTAINER, *TEMPLATE]:
        if "tasks" in said or "secrets" in said or "env_from" in said:
            # What comes from Secrets is said otherwise at the top: test_secrets_of_pods.py.
            continue
        for place in ("groups", "tasks"):
            settings = loaded({place: {"t": said}})
            nearer = settings.pod_for("t", ["t"])
            assert nearer == pod(**said)


def test_defaults_run_with_nothing_said() -> None:
    for nothing in (None, {}, {"tasks": None, "groups": None, "cron": None, "pools": None, "env": None, "image": None}):
        settings = ArgoSettings.load(nothing)
        (claim,) = settings.workflow_fields().pop("volumeClaimTemplates")
        assert claim["metadata"] == {"name": "raynode-catalog"}
        assert settings.workflow_fields() == {**USUAL, "volumeClaimTemplates": [claim]}
        assert settings.cron_fields() == settings.metadata_fields() == {}
        container = settings.pod_for("t", ()).container_fields()
        assert container["volumeMounts"] == [{"mountPath": "/raynode/catalog", "name": "raynode-catalog"}]
        assert {"name": "AIRFLOW__RAYNODE__CATALOG", "value": "/raynode/catalog"} in container["env"]
        assert settings.pod_for("t", ()).template_fields() == {}
        assert settings.pipeline_file(Path("dags/my.py")) == "/opt/raynode/dags/my.py"
        assert settings.manifests(Path("dags/my.py")) == []


def test_keys_that_the_compiler_reads() -> None:
    settings = loaded(
        {
            "name": "flow",
            "namespace": "ml",
            "labels": {"a": "b", "gone": None},
            "annotations": {"c": "d e"},
            "configuration_file": "/etc/raynode.yaml",
            "pools": {"gpu pool": 2},
            "pools_config_map": "limits",
            "cron": {
                "concurrency_policy": "Forbid",
                "starting_deadline_seconds": 0,
                "successful_jobs_history_limit": 5,
                "failed_jobs_history_limit": 6,
                "suspend": "no",
            },
        }
    )
    assert (settings.name, settings.configuration_file) == ("flow", "/etc/raynode.yaml")
    assert (settings.pools, settings.pools_config_map) == ({"gpu pool": 2}, "limits")
    assert settings.metadata_fields() == {"namespace": "ml", "labels": {"a": "b"}, "annotations": {"c": "d e"}}
    assert settings.cron_fields() == {
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 0,
        "successfulJobsHistoryLimit": 5,
        "failedJobsHistoryLimit": 6,
        "suspend": False,
    }
    assert settings.pod_for("t", ()).template_fields() == {}


def test_catalog_reaches_the_pods_and_a_task_may_have_its_own() -> None:
    name = "AIRFLOW__RAYNODE__CATALOG"
    settings = loaded({"catalog": "s3://b/p", "tasks": {"t": {"env": {name: "s3://c"}}}})
    assert settings.pod_for("u", ()).container_fields()["env"] == [{"name": name, "value": "s3://b/p"}]
    assert settings.pod_for("t", ()).container_fields()["env"] == [{"name": name, "value": "s3://c"}]


def test_load_takes_a_file_settings_and_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "argo.yaml"
    path.write_text("# nothing yet\n")
    assert ArgoSettings.load(path).model_dump() == ArgoSettings.load(None).model_dump()
    path.write_text("env: {MODE: on}\nresources: {memory: 4e9}\n")
    settings = ArgoSettings.load(str(path))
    assert {"name": "MODE", "value": "on"} in settings.pod_for("t", ()).container_fields()["env"]
    assert ArgoSettings.load(settings) is settings


# -- merging -----------------------------------------------------------------------------------------------------------


def test_order_is_all_pods_outer_group_inner_group_task() -> None:
    settings = loaded(
        {
            "image": "all",
            "groups": {"a": {"image": "outer", "timeout": 1}, "a.b": {"image": "inner", "timeout": 2}},
            "tasks": {"a.b.t": {"image": "task"}},
        }
    )
    pods = [settings.pod_for(*each) for each in (("u", []), ("a.u", ["a"]), ("a.b.u", ["a", "a.b"]))]
    assert [each.image for each in pods] == ["all", "outer", "inner"]
    task = settings.pod_for("a.b.t", ["a", "a.b"])
    assert (task.image, task.template_fields()) == ("task", {"activeDeadlineSeconds": 2})


def test_entries_merge_and_null_takes_away() -> None:
    settings = loaded(
        {
            "env": {"A": "1", "B": "2", "C": "3"},
            "secrets": {name: {**SECRET, "all_pods": True} for name in ("S", "GONE")},
            "pod_labels": {"x": "1", "y": "2"},
            "node_selector": {"disk": "ssd"},
            "volumes": {"d": {"pvc": "one"}, "e": {"empty_dir": {}}},
            "volume_mounts": {"/d": "d", "/e": "e"},
            "tasks": {
                "t": {
                    "env": {"B": "two", "C": None, "D": "4", "S": "plain"},
                    "secrets": {"A": SECRET, "GONE": None},
                    "labels": {"x": None, "z": "3"},
                    "node_selector": None,
                    "volumes": {"d": {"pvc": "two"}, "e": None},
                    "volume_mounts": {"/e": None, "/f": "d"},
                }
            },
        }
    )
    task = settings.pod_for("t", ())
    container, template = task.container_fields(), task.template_fields()
    assert container["env"] == [
        {"name": "A", "valueFrom": {"secretKeyRef": SECRET}},
        {"name": "B", "value": "two"},
        {"name": "S", "value": "plain"},
        {"name": "D", "value": "4"},
    ]
    assert template["metadata"] == {"labels": {"y": "2", "z": "3"}}
    assert "nodeSelector" not in template
    assert template["volumes"] == [{"name": "d", "persistentVolumeClaim": {"claimName": "two"}}]
    assert container["volumeMounts"] == [{"mountPath": "/d", "name": "d"}, {"mountPath": "/f", "name": "d"}]


def test_resources_merge_one_by_one() -> None:
    settings = loaded(
        {
            "resources": {"cpu": 1, "memory": "2Gi", "gpu_resource": "amd.com/gpu"},
            "groups": {"g": {"resources": {"gpus": 1, "limits": {"cpu": 4}}}},
            "tasks": {"g.t": {"resources": {"memory": None, "gpus": 2}}, "g.u": {"resources": {"gpus": 0}}},
        }
    )
    of = {each: settings.pod_for(each, ["g"]).container_fields()["resources"] for each in ("g.t", "g.u", "g.v")}
    assert of["g.t"] == {"requests": {"cpu": "1"}, "limits": {"cpu": "4", "amd.com/gpu": "2"}}
    assert of["g.u"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "4", "memory": "2Gi"}}
    assert of["g.v"]["limits"]["amd.com/gpu"] == "1"


def test_retry_strategy_and_its_backoff_merge() -> None:
    settings = loaded(
        {
            "retry_strategy": {"limit": 3, "policy": "OnError", "backoff": {"duration": 10, "factor": 2}},
            "tasks": {"t": {"retry_strategy": {"limit": 5, "policy": None, "backoff": {"factor": None, "cap": 60}}}},
        }
    )
    found = settings.pod_for("t", ()).template_fields()["retryStrategy"]
    assert found == {"limit": "5", "backoff": {"duration": "10s", "cap": "60s"}}


def test_lists_go_behind_the_inherited_and_containers_replace_by_name() -> None:
    other = {"key": "spot", "operator": "Exists"}
    settings = loaded(
        {
            "tolerations": [TOLERATION],
            "env_from": [{"secret": "a", "all_pods": True}, {"secret": "b", "all_pods": True}],
            "sidecars": {"x": {"image": "x:1"}, "y": {"image": "y:1"}},
            "init_containers": [{"name": "i", "image": "i"}],
            "security_context": {"fsGroup": 1, "runAsUser": 2},
            "affinity": AFFINITY,
            "tasks": {
                "t": {
                    "tolerations": [other, TOLERATION],
                    "env_from": [{"secret": "a"}],
                    "sidecars": [{"name": "x", "image": "x:2"}, {"name": "z", "image": "z"}],
                    "init_containers": {"i": None},
                    "security_context": {"runAsUser": None, "runAsGroup": 3},
                    "affinity": {"podAffinity": {}},
                },
                "u": {"tolerations": None},
            },
        }
    )
    task = settings.pod_for("t", ())
    template = task.template_fields()
    assert template["tolerations"] == [other, TOLERATION]
    # The last one counts where two have the same key.
    assert task.container_fields()["envFrom"] == [{"secretRef": {"name": "b"}}, {"secretRef": {"name": "a"}}]
    assert [(each["name"], each["image"]) for each in template["sidecars"]] == [("x", "x:2"), ("y", "y:1"), ("z", "z")]
    assert "initContainers" not in template
    assert template["securityContext"] == {"fsGroup": 1, "runAsGroup": 3}
    assert template["affinity"] == {**AFFINITY, "podAffinity": {}}
    assert "tolerations" not in settings.pod_for("u", ()).template_fields()


def test_service_account_and_scheduler_are_in_a_template_only_where_they_differ() -> None:
    settings = loaded(
        {
            "service_account": "all",
            "scheduler_name": "volcano",
            "tasks": {"t": {"service_account": "own"}, "u": {"service_account": None, "scheduler_name": None}},
        }
    )
    assert settings.pod_for("t", ()).template_fields() == {"serviceAccountName": "own"}
    assert settings.pod_for("u", ()).template_fields() == {
        "serviceAccountName": "default",
        "schedulerName": "default-scheduler",
    }


def test_pods_with_equal_settings_are_equal() -> None:
    settings = loaded({"tasks": {"a": {"timeout": 60}, "b": {"timeout": "1m"}, "c": {"timeout": 61}}})
    a, b, c = (settings.pod_for(each, ()) for each in "abc")
    assert a == b != c
    assert len({a, b, c}) == 2


# -- the DAG's files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"image": {"path": "/opt/dags/x.py"}}, "/opt/dags/x.py"),
        ({"image": {"path": "/opt/dags/"}}, "/opt/dags/my.py"),
        ({"image": None, "git": {"repository": "https://git/r", "path": "dags"}}, "/opt/raynode/dags/dags/my.py"),
        ({"git": {"repository": "https://git/r", "path": "dags/x.py"}}, "/opt/raynode/dags/dags/x.py"),
        ({"config_map": {"name": "files"}}, "/opt/raynode/dags/my.py"),
        ({"config_map": {"name": "files", "key": "x.py", "mount_path": "/d"}}, "/d/x.py"),
    ],
)
def test_path_of_the_dag_file_in_the_pods(source: dict[str, Any], path: str) -> None:
    assert loaded({"dag_source": source}).pipeline_file(Path("there/my.py")) == path


def test_config_map_has_the_files_and_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "my.py").write_text("print('é')\n")
    (tmp_path / "configs" / "ray_tune.yaml").write_text("ray_tune: {}\n")
    source = {"name": "files", "files": ["configs/ray_tune.yaml"]}
    settings = loaded({"namespace": "ml", "dag_source": {"config_map": source}})
    (manifest,) = settings.manifests(tmp_path / "my.py")
    assert manifest["metadata"] == {"name": "files", "namespace": "ml"}
    assert manifest["data"] == {"my.py": "print('é')\n", "configs__ray_tune.yaml": "ray_tune: {}\n"}
    found = settings.pod_for("t", ())
    items = [{"key": "configs__ray_tune.yaml", "path": "configs/ray_tune.yaml"}]
    sources = [{"configMap": {"name": "files"}}, {"configMap": {"name": "files", "items": items}}]
    assert proven("Template", found.template_fields())["volumes"] == [
        {"name": "raynode-dag", "projected": {"sources": sources}}
    ]
    assert found.container_fields()["volumeMounts"] == [
        {"mountPath": "/opt/raynode/dags", "name": "raynode-dag", "readOnly": True}
    ]
    kept = loaded({"dag_source": {"config_map": {"name": "files", "create": False}}})
    assert kept.manifests(tmp_path / "my.py") == []
    assert kept.pod_for("t", ()).template_fields()["volumes"] == [
        {"name": "raynode-dag", "configMap": {"name": "files"}}
    ]
    (tmp_path / "my.py").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match=r"bytes, a ConfigMap holds 1,048,576: use dag_source\.git"):
        settings.manifests(tmp_path / "my.py")
    (tmp_path / "my.py").unlink()
    with pytest.raises(ConfigError, match=r"my\.py: cannot be read as text"):
        settings.manifests(tmp_path / "my.py")


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", *names, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_init_container_clones_branch_tag_and_commit(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "--quiet", "--initial-branch=main")
    commits = []
    for text in ("first", "second", "third"):
        (origin / "x.py").write_text(text)
        git(origin, "add", ".")
        git(origin, "commit", "--quiet", "-m", text)
        commits.append(git(origin, "rev-parse", "HEAD"))
    git(origin, "tag", "v1", commits[0])
    git(origin, "branch", "side/b", commits[1])
    expected = [("HEAD", "third"), ("main", "third"), ("v1", "first"), ("side/b", "second"), (commits[1], "second")]
    expected.append((commits[0][:10], "first"))
    for number, (revision, text) in enumerate((*expected, *expected)):
        depth = number // len(expected)
        source = {"repository": f"file://{origin}", "revision": revision, "path": ".", "depth": depth}
        found = loaded({"dag_source": {"git": source}}).pod_for("t", ())
        template = proven("Template", found.template_fields())
        (clone,) = template["initContainers"]
        (target := tmp_path / f"clone-{number}").mkdir()
        subprocess.run([*clone["command"], *clone["args"]], cwd=target, check=True, timeout=60)
        assert (target / "x.py").read_text() == text, revision
    (mount,) = clone["volumeMounts"]
    assert mount == {"name": "raynode-dag", "mountPath": clone["workingDir"]}
    assert template["volumes"] == [{"name": "raynode-dag", "emptyDir": {}}]
    assert found.container_fields()["volumeMounts"] == [{"mountPath": clone["workingDir"], "name": "raynode-dag"}]
    missing = [*clone["command"], f"file://{origin}", "no-such-branch", "1"]
    assert subprocess.run(missing, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_init_container_reads_the_password_from_the_mounted_secret(tmp_path: Path) -> None:
    work, bare, secret = tmp_path / "work", tmp_path / "bare.git", tmp_path / "secret"
    for folder in (work, secret):
        folder.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    (work / "x.py").write_text("private")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "one")
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    git(bare, "update-server-info")
    (secret / "username").write_text("robot")
    (secret / "password").write_text("pass  word$1'\n")
    expected = "Basic " + base64.b64encode(b"robot:pass  word$1'").decode()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") == expected:
                super().do_GET()
            else:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/bare.git"
        source = {"repository": url, "revision": "main", "path": ".", "secret": "deploy"}
        pod_settings = loaded({"dag_source": {"git": source}}).pod_for("t", ())
        (clone,) = pod_settings.template_fields()["initContainers"]
        mounted = {each["name"]: each["mountPath"] for each in clone["volumeMounts"]}["raynode-git-secret"]
        command = [each.replace(mounted, str(secret)) for each in clone["command"]]
        (target := tmp_path / "clone").mkdir()
        # Such a plain file server knows no depth: the script has to fetch all.
        done = subprocess.run(
            [*command, *clone["args"]], cwd=target, capture_output=True, text=True, check=False, timeout=60
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert (target / "x.py").read_text() == "private"
    assert "word$1" not in done.stdout + done.stderr


def test_git_secret_is_mounted_in_the_init_container_only_and_comes_before_others() -> None:
    source = {"repository": "git@host:r.git", "path": "dags", "secret": "deploy", "image": "git:1"}
    found = loaded({"dag_source": {"git": source}, "init_containers": {"own": {"image": "i"}}}).pod_for("t", ())
    template = proven("Template", found.template_fields())
    assert [each["name"] for each in template["initContainers"]] == ["raynode-git-clone", "own"]
    assert template["initContainers"][0]["image"] == "git:1"
    assert {"name": "raynode-git-secret", "secret": {"secretName": "deploy"}} in template["volumes"]
    assert "raynode-git-secret" in [each["name"] for each in template["initContainers"][0]["volumeMounts"]]
    assert [each["name"] for each in found.container_fields()["volumeMounts"]] == ["raynode-dag"]


# -- warnings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["PASSWORD", "DB_PASSWORD", "GITHUB_TOKEN", "client-secret", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "apikey",
     "AIRFLOW_CONN_RAY_DEFAULT", "AIRFLOW__CORE__FERNET_KEY", "HF_TOKEN"],
)  # fmt: skip
def test_plain_secret_is_a_warning_without_its_value(name: str) -> None:
    settings = loaded({"catalog": "s3://b", "env": {name: "hunter2"}, "tasks": {"t": {"env": {name: "x"}}}})
    first, second = settings.warnings()
    assert first.startswith(f"settings: env.{name}: looks like a secret")
    assert second.startswith(f"settings: tasks.t.env.{name}: ")
    assert "hunter2" not in first


@pytest.mark.parametrize(
    "env",
    [
        {"TOKENIZERS_PARALLELISM": "false"},
        {"PASSWORD_FILE": "/run/secret"},
        {"MAX_TOKENS": "100"},
        {"AWS_ACCESS_KEY_ID": "x"},
        {"MODE": "fast", "URL": "https://host:8080/path"},
        {"PASSWORD": {"secret": SECRET}},
        {"PASSWORD": ""},
        {"PASSWORD": "{{workflow.parameters.password}}"},
    ],
)
def test_what_is_no_secret_is_no_warning(env: dict[str, Any]) -> None:
    assert loaded({"catalog": "s3://b", "tasks": {"t": {"env": env}}}).warnings() == []


def test_password_in_a_url_and_in_a_sidecar_is_a_warning() -> None:
    sidecar = {"image": "i", "env": [{"name": "API_KEY", "value": "x"}]}
    said = {"catalog": "s3://b", "env": {"DB": "postgres://u:p@h/d"}, "groups": {"g": {"sidecars": {"s": sidecar}}}}
    warnings = loaded(said).warnings()
    assert [each.partition(": looks")[0] for each in warnings] == [
        "settings: env.DB",
        "settings: groups.g.sidecars.s.env.API_KEY",
    ]


def test_catalog_that_is_not_shared_is_a_warning() -> None:
    assert "catalog: is not there" in ArgoSettings.load(None).warnings()[0]
    mounted = {"volumes": {"d": {"pvc": "c"}}, "volume_mounts": {"/data": "d"}}
    assert loaded({"catalog": "/data/catalog", **mounted}).warnings() == []
    (warning,) = loaded({"catalog": "/database", **mounted}).warnings()
    assert "no volume is mounted at /database" in warning
    assert loaded({"env": {"AIRFLOW__RAYNODE__CATALOG": "s3://b"}}).warnings() == []


# -- the reference -----------------------------------------------------------------------------------------------------


def test_reference_is_what_the_models_say() -> None:
    written = (ROOT / "docs" / "argo-settings.md").read_text(encoding="utf-8")
    command = "python -m airflow_provider_raynode.argo.settings_reference > docs/argo-settings.md"
    assert written == reference(), f"docs/argo-settings.md is out of date: {command}"


def test_reference_names_every_key_and_its_example_loads(tmp_path: Path) -> None:
    text = reference()
    for name in {*ArgoSettings.model_fields, *PodOverrides.model_fields}:
        assert f"| `{name}` |" in text
    path = tmp_path / "argo.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    settings = ArgoSettings.load(path)
    assert settings.warnings() == []
    resources = settings.pod_for("ray_hyperparameter_tuning.tune", ()).container_fields()["resources"]
    assert resources["limits"] == {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}


def test_yaml_of_the_guide_loads(tmp_path: Path) -> None:
    blocks = (ROOT / "docs" / "argo.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    texts = [each.partition("```")[0] for each in blocks]
    settings = [each for each in texts if each.startswith(("# argo.yaml", "image:"))]
    assert settings
    for text in settings:
        path = tmp_path / "argo.yaml"
        path.write_text(text)
        ArgoSettings.load(path).pod_for("t", ())


def test_literal_parts_are_the_only_reason_to_import_hera() -> None:
    code = """
import sys
from airflow_provider_raynode.argo.settings import ArgoSettings
ArgoSettings.load({"image": "i", "resources": {"cpu": 1}})
assert not {"hera", "airflow", "ray"} & set(sys.modules), sorted({"hera", "airflow", "ray"} & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
