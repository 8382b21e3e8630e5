"""RayConfig under whatever comes: a config, or ConfigError, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ConfigError

VALID: dict[str, Any] = {
    "ray_cluster": {
        "address": "https://head:8265",
        "runtime_env": {"pip": ["numpy"], "env_vars": {"A": "1"}},
    },
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "num_samples": 4,
        "search_space": {
            "x": {"type": "uniform", "low": 0.0, "high": 1.0},
            "n": {"type": "qrandint", "low": 0, "high": 8, "q": 2},
            "c": {"type": "choice", "choices": ["a", "b"]},
            "deep": {"k": {"type": "loguniform", "low": 0.1, "high": 1}},
        },
        "scheduler": {"type": "ASHAScheduler", "max_t": 10},
        "search_algorithm": {"type": "BasicVariantGenerator"},
        "failure": {"max_failures": 1, "min_successful": 2},
        "stop": {"training_iteration": 3},
    },
    "default_resources": {"num_cpus": 1, "memory": 1000},
    "catalog": {"uri": "s3://bucket/prefix"},
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", "uniform", "-1"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, front: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [front] if front else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*front, key))
    return found


PLACES = places(VALID)


def load(source: Any) -> RayConfig | None:
    try:
        config = RayConfig.load(source) if not isinstance(source, Path) else RayConfig.from_file(source)
    except ConfigError as error:
        assert str(error)
        return None
    assert RayConfig.model_validate(config.model_dump(mode="json")) == config, "what was read can be read again"
    return config


@settings(max_examples=2000, deadline=None)
@given(place=st.sampled_from(PLACES), value=anything, also=st.none() | st.tuples(st.sampled_from(PLACES), anything))
def test_one_or_two_values_of_a_config_are_anything(place: Any, value: Any, also: Any) -> None:
    raw = copy.deepcopy(VALID)
    for where, new in [(place, value), *([also] if also else [])]:
        part: Any = raw
        for key in where[:-1]:
            # The first change may have taken the second one's place away.
            inside = key in part if isinstance(part, dict) else isinstance(part, list) and isinstance(key, int)
            part = part[key] if inside and (isinstance(part, dict) or key < len(part)) else None
        if isinstance(part, dict):
            part[where[-1]] = new
    load(raw)


@settings(max_examples=500, deadline=None)
@given(raw=anything)
def test_a_config_is_anything(raw: Any) -> None:
    load(raw)


@settings(max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_is_anything(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "ray_tune.yaml"
    whole = yaml.safe_dump(VALID)
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(st.binary(max_size=60)))
    else:
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, min(start + 20, len(whole))))
        file.write_text(whole[:start] + data.draw(st.text(max_size=12)) + whole[end:], errors="ignore")
    load(file)
