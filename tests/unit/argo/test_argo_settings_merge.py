"""Properties of merging: groups may be merged first, nothing said changes nothing, the nearest wins."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from settings_cases import loaded

from airflow_provider_raynode.argo.settings._merge import merged
from airflow_provider_raynode.argo.settings.pod import PodOverrides

WORDS = st.sampled_from(["a", "b", "c"])
TEXT = st.sampled_from(["1", "2", "3"])
ENTRIES = st.dictionaries(WORDS, st.none() | TEXT, max_size=3)
TOLERATIONS = st.lists(st.builds(lambda key: {"key": key, "operator": "Exists"}, WORDS), max_size=3)
AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.none() | TEXT, max_size=2)
BACKOFF = st.fixed_dictionaries({}, optional={"duration": st.none() | TEXT.map(int), "factor": st.none() | st.just(2)})
# A null of a whole mapping forgets what is below it: then only the order of the file counts, so there is none here.
LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.none() | TEXT,
        "timeout": st.none() | st.integers(1, 3),
        "env": ENTRIES,
        "labels": ENTRIES,
        "node_selector": ENTRIES,
        "volumes": st.dictionaries(WORDS, st.none() | TEXT.map(lambda name: {"pvc": name}), max_size=3),
        "tolerations": TOLERATIONS,
        "env_from": st.lists(WORDS.map(lambda name: {"secret": name}), max_size=3),
        "security_context": st.dictionaries(st.sampled_from(["fsGroup", "runAsUser"]), st.none() | st.integers(1, 3)),
        "sidecars": st.dictionaries(WORDS, st.none() | TEXT.map(lambda image: {"image": image}), max_size=3),
        "resources": st.fixed_dictionaries({}, optional={"limits": AMOUNTS, "gpus": st.integers(0, 2)}),
        "retry_strategy": st.fixed_dictionaries({}, optional={"limit": st.integers(0, 2), "backoff": BACKOFF}),
    },
)


def layer(said: dict[str, Any]) -> dict[str, Any]:
    return PodOverrides.model_validate(said).layer()


@given(LAYERS, LAYERS, LAYERS)
def test_merging_is_associative(a: Any, b: Any, c: Any) -> None:
    outer, inner, task = layer(a), layer(b), layer(c)
    left, right = merged([merged([outer, inner]), task]), merged([outer, merged([inner, task])])
    assert left == right == merged([outer, inner, task])
    assert str(left) == str(right)  # the order of the entries as well


@given(LAYERS)
def test_nothing_said_changes_nothing_and_saying_it_twice_neither(said: Any) -> None:
    one = merged([layer(said)])
    assert merged([{}, one]) == merged([one, {}]) == merged([one, one]) == one


@given(LAYERS, LAYERS, LAYERS)
def test_the_nearest_part_wins(all_pods: Any, group: Any, task: Any) -> None:
    top = {key.replace("labels", "pod_labels"): value for key, value in all_pods.items() if key != "env_from"}
    settings = loaded({**top, "groups": {"g": group}, "tasks": {"g.t": task}})
    pod = settings.pod_for("g.t", ["g"])
    found = {entry["name"]: entry["value"] for entry in pod.container_fields().get("env", [])}
    expected = {**all_pods.get("env", {}), **group.get("env", {}), **task.get("env", {})}
    assert found == {name: value for name, value in expected.items() if value is not None}
    for said in (task, group, all_pods):
        if "timeout" in said:
            assert pod.template_fields().get("activeDeadlineSeconds") == said["timeout"]
            break
    else:
        assert "activeDeadlineSeconds" not in pod.template_fields()


@given(LAYERS)
def test_no_field_is_empty_or_null(said: Any) -> None:
    pod = loaded({"tasks": {"t": said}}).pod_for("t", ())

    def check(value: Any) -> None:
        assert value is not None
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(each)

    for fields in (pod.container_fields(), pod.template_fields()):
        check(fields)
        assert all(value not in ({}, []) for value in fields.values())
