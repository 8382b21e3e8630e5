"""A table of wrong settings with what the message must say: the key's path, the value, what is right."""
# ruff: noqa: E501  one case per line

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from settings_cases import loaded

from airflow_provider_raynode.argo.settings import ArgoSettings
from airflow_provider_raynode.exceptions import ConfigError

KEY = {"name": "s", "key": "k"}
PROXY = {"image": "p"}

# fmt: off
BAD: list[tuple[dict[Any, Any], str]] = [
    # unknown keys, at each depth
    ({"nodeSelector": {}}, "nodeSelector: unknown key, did you mean 'node_selector'?"),
    ({"imgae": "x"}, "imgae: unknown key, did you mean 'image'?"),
    ({"zzz": 1}, "zzz: unknown key; allowed: "),
    ({"tasks": {"t": {"volumeMounts": {}}}}, "tasks.t.volumeMounts: unknown key, did you mean 'volume_mounts'?"),
    ({"tasks": {"t": {"parallelism": 1}}}, "tasks.t.parallelism: unknown key"),
    ({"groups": {"g": {"resources": {"cpus": 1}}}}, "groups.g.resources.cpus: unknown key, did you mean 'cpu'? allowed: cpu, memory, gpus,"),
    ({"retry_strategy": {"backoff": {"durations": 1}}}, "retry_strategy.backoff.durations: unknown key, did you mean 'duration'?"),
    ({"env": {"A": {"secrets": KEY}}}, "env.A.secrets: unknown key, did you mean 'secret'?"),
    ({"cron": {"schedule": "* * * * *"}}, "cron.schedule: unknown key"),
    # literal parts of Kubernetes
    ({"security_context": {"run_as_user": 1}}, "security_context.run_as_user: unknown key 'run_as_user' in a PodSecurityContext, did you mean 'runAsUser'?"),
    ({"container_security_context": {"runAsUser": "1"}}, "container_security_context.runAsUser: '1' is not a whole number"),
    ({"affinity": {"nodeAfinity": {}}}, "affinity.nodeAfinity: unknown key 'nodeAfinity' in a Affinity, did you mean 'nodeAffinity'?"),
    ({"tolerations": [{"key": "a", "efect": "x"}]}, "tolerations[0].efect: unknown key 'efect' in a Toleration, did you mean 'effect'?"),
    ({"tolerations": [{"operator": "Exist"}]}, "tolerations[0].operator: 'Exist' is not allowed, did you mean 'Exists'?"),
    ({"tolerations": {"key": "a"}}, "tolerations: {'key': 'a'} is not a list"),
    ({"sidecars": [{"name": "s", "image": "i", "porst": []}]}, "sidecars[0].porst: unknown key 'porst' in a UserContainer, did you mean 'ports'?"),
    ({"sidecars": {"main": PROXY}}, "sidecars.main: 'main' is the name of a container of Argo's own"),
    ({"sidecars": [PROXY]}, "sidecars[0]: has no name"),
    ({"sidecars": {"s": {"name": "t"}}}, "sidecars.s: name cannot stand here"),
    ({"init_containers": [{"name": "a", **PROXY}, {"name": "a", **PROXY}]}, "init_containers[1].name: 'a' is there twice"),
    ({"volumes": {"d": {"nfs": {"server": "s"}}}}, "volumes.d.nfs: path is missing"),
    ({"pod_gc": {"strategy": "OnPodSuccess", "label_selector": {"matchLabel": {}}}}, "pod_gc.label_selector.matchLabel: unknown key"),
    ({"pod_spec_patch": {"terminationGracePeriod": 1}}, "pod_spec_patch.terminationGracePeriod: unknown key 'terminationGracePeriod' in a PodSpec, did you mean"),
    ({"pod_spec_patch": "a: [b"}, "pod_spec_patch: is not YAML or JSON"),
    ({"pod_spec_patch": "just text"}, "pod_spec_patch: 'just text' is not a mapping"),
    # volumes and mounts
    ({"volumes": {"d": {"pvcs": "c"}}}, "volumes.d.pvcs: unknown kind of volume, did you mean 'pvc'?"),
    ({"volumes": {"d": {"zzz": "c"}}}, "volumes.d.zzz: unknown key 'zzz' in a Volume"),
    ({"volumes": {"d": {}}}, "volumes.d: needs exactly one source (pvc, config_map, secret, empty_dir, host_path or one of Kubernetes' own); given: none"),
    ({"volumes": {"d": {"pvc": "c", "secret": "s"}}}, "volumes.d: needs exactly one source"),
    ({"volumes": {"d": "claim"}}, "volumes.d: 'claim' is not a mapping"),
    ({"volumes": {"My_Data": {"pvc": "c"}}}, "volumes.My_Data: 'My_Data' is not a name that Kubernetes takes: lower-case letters"),
    ({"volumes": {"raynode-dag": {"pvc": "c"}}}, "volumes.raynode-dag: 'raynode-dag' is the name of a volume that the export or Argo adds"),
    ({"volumes": "x"}, "volumes: is of type str, neither a mapping (name: …) nor a list"),
    ({"volume_mounts": {"/d": "dtaa"}, "volumes": {"data": {"pvc": "c"}}}, "volume_mounts./d: there is no volume 'dtaa', did you mean 'data'?"),
    ({"volume_mounts": {"data": "d"}}, "volume_mounts.data.path: 'data' is not an absolute path"),
    ({"volume_mounts": {"/d": {"volume": "d", "path": "/e"}}}, "volume_mounts./d: path cannot stand here: the key is the path"),
    ({"volume_mounts": {"/d": {"volume": "d", "readonly": True}}}, "volume_mounts./d.readonly: unknown key, did you mean 'read_only'?"),
    ({"volume_mounts": [{"path": "/d", "volume": "d"}, {"path": "/d/", "volume": "e"}]}, "volume_mounts[1]: /d is mounted twice"),
    ({"volume_mounts": [{"path": "/d"}]}, "volume_mounts[0].volume: is missing"),
    # the environment
    ({"env": {"1A": "x"}}, "env.1A: '1A' is not a name of an environment variable"),
    ({"env": {"A": 8080}}, "env.A: the value is of type int, not text: put it in quotes"),
    ({"env": {"A": True}}, "env.A: the value is of type bool, not text"),
    ({"env": {"A": {}}}, "env.A: needs exactly one of secret, config_map, field, value, valueFrom; given: none"),
    ({"env": {"A": {"secret": {"name": "s"}}}}, "env.A.secret.key: is missing"),
    ({"env": {"A": {"secret": KEY, "field": "f"}}}, "env.A: needs exactly one of secret, config_map, field, value, valueFrom; given: secret, field"),
    ({"env": {"A": {"valueFrom": {"secretRef": KEY}}}}, "env.A.valueFrom.secretRef: unknown key 'secretRef' in a EnvVarSource"),
    ({"env": [{"value": "x"}]}, "env[0]: has no name"),
    ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "env[1].name: 'A' is there twice"),
    ({"env": {"A": "x"}, "secrets": {"A": KEY}}, "secrets.A: is in env as well: say it once"),
    ({"tasks": {"t": {"env_from": [{"secret": "s", "config_map": "c"}]}}}, "tasks.t.env_from[0]: needs exactly one of secret and config_map"),
    ({"env_from": [{"secret": "My Secret"}]}, "env_from[0].secret: 'My Secret' is not a name that Kubernetes takes"),
    ({"env_from": {"secret": "s"}}, "env_from: {'secret': 's'} is not a list"),
    # what every pod would have
    ({"env": {"A": {"secret": KEY}}}, "env.A: comes from a Secret: declare it under secrets, for the tasks that need it"),
    ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": KEY}}]}, "env.A: comes from a Secret: declare it under secrets"),
    ({"env_from": [{"secret": "s"}]}, "env_from[0]: gives every pod all keys of the Secret 's': say it under the groups and tasks"),
    ({"env_from": [{"secretRef": {"name": "s"}}]}, "env_from[0]: gives every pod all keys of a Secret: {secret: …, all_pods: true}"),
    ({"tasks": {"t": {"env_from": [{"secret": "s", "all_pods": True}]}}}, "tasks.t.env_from[0].all_pods: unknown key"),
    ({"tasks": {"t": {"secrets": {"A": {**KEY, "all_pods": True}}}}}, "tasks.t.secrets.A.all_pods: unknown key"),
    ({"secrets": {"DB_URL": KEY}, "tasks": {"t": {"secrets": ["DB_ULR"]}}}, "tasks.t.secrets.DB_ULR: is not declared under secrets at the top, did you mean 'DB_URL'?"),
    ({"groups": {"g": {"secrets": ["A"]}}}, "groups.g.secrets.A: is not declared under secrets at the top"),
    ({"on_exit": {"secrets": ["A"]}}, "on_exit.secrets.A: is not declared under secrets at the top"),
    ({"tasks": {"t": {"secrets": "A"}}}, "tasks.t.secrets: is of type str, neither a list of names"),
    ({"secrets": {"AIRFLOW__RAYNODE__CATALOG": KEY}}, "secrets.AIRFLOW__RAYNODE__CATALOG: every pod needs it: say all_pods: true"),
    ({"tasks": {"t": {"secrets": None}}}, "tasks.t.secrets: null takes nothing away here"),
    # resources
    ({"resources": {"memory": "4GB"}}, "resources.memory: '4GB' is not a quantity such as 2, 500m or 4Gi, did you mean '4G'?"),
    ({"resources": {"memory": "512mib"}}, "resources.memory: '512mib' is not a quantity such as 2, 500m or 4Gi, did you mean '512Mi'?"),
    ({"resources": {"memory": "512m"}}, "resources.memory: '512m' is not a whole number of bytes"),
    ({"resources": {"cpu": "two"}}, "resources.cpu: 'two' is not a quantity"),
    ({"resources": {"cpu": -1}}, "resources.cpu: -1 is not a quantity"),
    ({"resources": {"cpu": True}}, "resources.cpu: True is not a quantity"),
    ({"resources": {"gpus": 0.5}}, "resources.gpus: 0.5 is not an integer"),
    ({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1G"}}}, "resources.requests.memory: 2Gi is above the limit 1G"),
    ({"resources": {"gpus": 1, "limits": {"nvidia.com/gpu": 1}}}, "resources.limits.'nvidia.com/gpu': stands beside gpus"),
    # times, numbers, words
    ({"timeout": "soon"}, "timeout: 'soon' is neither seconds nor a duration such as 90s or 1h30m"),
    ({"timeout": 0}, "timeout: 0 is not a whole number of seconds above 0"),
    ({"timeout": "100ms"}, "timeout: '100ms' is not a whole number of seconds above 0"),
    ({"active_deadline_seconds": -5}, "active_deadline_seconds: -5 is not a whole number"),
    ({"retry_strategy": {"limit": -1}}, "retry_strategy.limit: -1 is below 0"),
    ({"retry_strategy": {"policy": "always"}}, "retry_strategy.policy: 'always' is not allowed, did you mean 'Always'?"),
    ({"retry_strategy": {"backoff": {"factor": 1.5}}}, "retry_strategy.backoff.factor: 1.5 is not an integer"),
    ({"retry_strategy": {"backoff": {"duration": "1 day"}}}, "retry_strategy.backoff.duration: '1 day' is not a duration"),
    ({"image_pull_policy": "ifnotpresent"}, "image_pull_policy: 'ifnotpresent' is not allowed, did you mean 'IfNotPresent'?"),
    ({"pod_gc": "OnPodSucces"}, "pod_gc.strategy: 'OnPodSucces' is not allowed, did you mean 'OnPodSuccess'?"),
    ({"ttl_strategy": {"seconds_after_success": "1h"}}, "ttl_strategy.seconds_after_success: '1h' is not an integer"),
    ({"parallelism": 0}, "parallelism: 0 is below 1"),
    ({"pools": {"p": 0}}, "pools.p: 0 is below 1"),
    ({"command": []}, "command: has 0 entries"),
    ({"image": ""}, "image: is empty"),
    # names
    ({"name": "My_Flow"}, "name: 'My_Flow' is not a name that Kubernetes takes"),
    ({"name": "a" * 64}, "is not a name that Kubernetes takes: lower-case letters, digits and -, a letter or digit at both ends; . between such parts, at most 63 characters"),
    ({"namespace": "a.b"}, "namespace: 'a.b' is not a name"),
    ({"service_account": "A"}, "service_account: 'A' is not a name"),
    ({"labels": {"a b": "c"}}, "labels.'a b': is not a key that Kubernetes takes"),
    ({"labels": {"a": "b c"}}, "labels.a: 'b c' is not a label's value"),
    ({"pod_labels": {"a": 1}}, "pod_labels.a: 1 is not text: put it in quotes"),
    ({"annotations": {"a": True}}, "annotations.a: True is not text"),
    ({"tasks": {"t": {"annotations": {"UP/a": "b"}}}}, "tasks.t.annotations.UP/a: is not a key"),
    # what does not go together
    ({"catalog": "relative"}, "catalog: 'relative' is neither an absolute path (/…) nor a URI"),
    ({"catalog": "/c", "env": {"AIRFLOW__RAYNODE__CATALOG": "/d"}}, "catalog: AIRFLOW__RAYNODE__CATALOG is in env or secrets as well"),
    ({"automount_service_account_token": False}, "automount_service_account_token: is false: Argo's containers could not report"),
    ({"pools_config_map": "x", "dag_source": {"config_map": {"name": "x"}}}, "pools_config_map: 'x' is the name of dag_source.config_map as well"),
    # where the DAG is from
    ({"dag_source": {"image": {}, "git": {"repository": "r", "path": "p"}}}, "dag_source: needs exactly one of image, git and config_map; given: image, git"),
    ({"dag_source": {"git": {"repository": "r"}}}, "dag_source.git.path: is missing"),
    ({"dag_source": {"git": {"repository": "r", "path": "../x"}}}, "dag_source.git.path: '../x' is not a path below the folder"),
    ({"dag_source": {"git": {"repository": "--upload-pack=x", "path": "x"}}}, "dag_source.git.repository: '--upload-pack=x' starts with -"),
    ({"dag_source": {"git": {"repository": "https://u:hunter2@h/r", "path": "x"}}}, "dag_source.git.repository: holds a password"),
    ({"dag_source": {"image": {"path": "dags"}}}, "dag_source.image.path: 'dags' is not an absolute path"),
    ({"dag_source": {"config_map": {"name": "n", "files": ["/etc/x"]}}}, "dag_source.config_map.files[0]: '/etc/x' is not a path below"),
    ({"dag_source": {"gti": {}}}, "dag_source.gti: unknown key, did you mean 'git'?"),
    # braces
    ({"env": {"A": "{{workflow.name"}}, "env.A: the text has a {{ without its }}: Argo reads"),
    ({"env": {"A": "{{a}} {{b"}}, "env.A: the text has a {{ without its }}"),
    ({"tasks": {"t": {"annotations": {"a": "}} {{"}}}}, "tasks.t.annotations.a: the text has a {{"),
    ({"tasks": {"{{t": {}}}, "tasks.{{t: the key has a {{ without its }}"),
    ({"init_containers": [{"name": "i", "image": "i", "args": ["ok", "{{"]}]}, "init_containers[0].args[1]: the text has a {{"),
    # data
    ({1: "x"}, "the key 1 is not text"),
    ({"tasks": {"t": 3}}, "tasks.t: 3 is not a mapping"),
    ({"priority": float("nan")}, "priority: nan is not a finite number"),
]
# fmt: on


@pytest.mark.parametrize(("said", "message"), BAD, ids=[message[:70] for _, message in BAD])
def test_refused(said: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(said)
    lines = str(caught.value).splitlines()
    assert any(message in line for line in lines), lines
    # Where the only source has a wrong key, it is missing as well.
    assert len([line for line in lines if "given: none" not in line or "given: none" in message]) == 1, lines
    assert all(line.startswith("settings: ") for line in lines)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        {"secrets": {"A": "hunter2"}},
        {"env": {"A": ["hunter2"]}},
        {"env": {"A": {"value": ["hunter2"]}}},
        {"env": {"A": "hunter2 {{"}},
        {"secrets": ["hunter2"]},
        {"env": "A=hunter2"},
    ],
)
def test_value_that_may_be_a_secret_is_not_shown(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(said)
    assert "hunter2" not in str(caught.value)


def test_all_problems_at_once_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "argo.yaml"
    path.write_text("imgae: x\ntimeout: soon\nenv: {A: 1, B: '{{'}\ntasks: {t: {volumes: {D: {pvc: c}}}}\n")
    with pytest.raises(ConfigError) as caught:
        ArgoSettings.load(path)
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(places) == ["env.A", "env.B", "imgae", "tasks.t.volumes.D", "timeout"]
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        ArgoSettings.load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match="the top level is a list"):
        ArgoSettings.load(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="settings: int is not a path, a dict or ArgoSettings"):
        ArgoSettings.load(3)  # type: ignore[arg-type]


def test_what_only_merging_shows_is_refused_with_the_task(tmp_path: Path) -> None:
    settings = loaded(
        {
            "volumes": {"data": {"pvc": "c"}},
            "volume_mounts": {"/data": "data"},
            "resources": {"memory": "1Gi", "gpus": 1},
            "groups": {"g": {"volumes": {"data": None}}},
            "tasks": {
                "t": {"resources": {"requests": {"memory": "2Gi"}}},
                "u": {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            },
        }
    )
    with pytest.raises(
        ConfigError, match=r"^settings: the pods of g\.x: volume_mounts\./data: there is no volume 'data'"
    ):
        settings.pod_for("g.x", ["g"])
    with pytest.raises(ConfigError, match=r"the pods of t: resources\.requests\.memory: 2Gi is above the limit 1Gi"):
        settings.pod_for("t", ())
    with pytest.raises(ConfigError, match=r"the pods of u: resources\.limits\.'nvidia\.com/gpu': stands beside gpus"):
        settings.pod_for("u", ())


def test_overrides_of_nothing_are_refused_with_the_nearest_id() -> None:
    settings = loaded({"tasks": {"trian": {}, "node": {}, "ok": {}}, "groups": {"nod": {}, "ok": {}}})
    with pytest.raises(ConfigError) as caught:
        settings.check_names(["train", "ok"], ["node"])
    assert str(caught.value).splitlines() == [
        "settings: tasks.trian: the DAG has no such task, did you mean 'train'? it has: train, ok",
        "settings: tasks.node: is a task group: say it under groups",
        "settings: groups.nod: the DAG has no such task group, did you mean 'node'? it has: node",
        "settings: groups.ok: is a task: say it under tasks",
    ]
    loaded({"tasks": {"ok": {}}}).check_names(["ok"], [])


@pytest.mark.parametrize("text", ["{{workflow.name}}", "a}} b", '{"a": {"b": 1}}', "{{= inputs.x + '}' }}", "{ {"])
def test_closed_braces_pass_as_they_are(text: str) -> None:
    (entry,) = loaded({"env": {"A": text}}).pod_for("t", ()).container_fields()["env"]
    assert entry == {"name": "A", "value": text}
