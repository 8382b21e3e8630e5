"""Search spaces of any shape: normalising is stable, loses nothing, and always gives a space or a named error."""

from __future__ import annotations

import json
import math
from typing import Any

from config_cases import tune
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.domains import DOMAINS
from airflow_provider_raynode.config.search_space import domains_of
from airflow_provider_raynode.exceptions import ConfigError

_finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
_names = st.text(min_size=1, max_size=8).filter(lambda name: name not in ("type", "low", "high", "grid_search", "eval"))
_literals = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _finite | st.text(max_size=8)


@st.composite
def _bounded(draw: Any, names: tuple[str, ...], integers: bool, least: float) -> dict[str, Any]:
    values = st.integers(int(least), 10**6) if integers else st.floats(least, 1e6, width=32)
    low, high = draw(st.tuples(values, values).filter(lambda pair: pair[0] < pair[1]))
    return {"type": draw(st.sampled_from(names)), "low": low, "high": high}


_domains = (
    _bounded(("uniform",), False, -1e6)
    | _bounded(("loguniform",), False, 2**-10)
    | _bounded(("randint",), True, -1e6)
    | _bounded(("lograndint",), True, 1)
    | st.builds(lambda values: {"type": "choice", "choices": values}, st.lists(_literals, min_size=1, max_size=4))
    | st.builds(lambda values: {"type": "grid_search", "values": values}, st.lists(_literals, min_size=1, max_size=4))
    | st.builds(lambda value: {"type": "constant", "value": value}, _literals)
    | st.builds(lambda mean: {"type": "randn", "mean": mean, "sd": 2}, _finite)
)
_spaces = st.recursive(
    st.dictionaries(_names, _domains | _literals | st.lists(_literals, max_size=3), min_size=1, max_size=4),
    lambda below: st.dictionaries(_names, below | _domains, min_size=1, max_size=3),
    max_leaves=8,
)


@given(_spaces)
@settings(max_examples=150, deadline=None)
def test_search_space_round_trips(space: dict[str, Any]) -> None:
    config = RayConfig.load(tune(search_space=space))
    again = RayConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False)))
    assert again == config
    assert again.search_space == config.search_space
    assert _shape(config.search_space) == _shape(space)


def _shape(space: dict[str, Any]) -> Any:
    """The names, and the given values, of a space."""
    return {
        name: _shape(value) if isinstance(value, dict) and value.get("type") not in DOMAINS else _given(value)
        for name, value in space.items()
    }


def _given(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: float(each) if isinstance(each, int | float) and name in ("low", "high", "mean", "sd") else each
            for name, each in value.items()}  # fmt: skip


_anything = st.recursive(
    _literals | st.floats() | st.sampled_from([*DOMAINS, "unifrom"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "low", "high", "q", "choices", "values", "value", "mean", "sd", "a", "b"]), below
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "type"]), _anything, max_size=3))
@settings(max_examples=300, deadline=None)
def test_anything_is_a_space_or_a_named_error(space: dict[str, Any]) -> None:
    try:
        config = RayConfig.load(tune(search_space=space), source="f.yaml")
    except ConfigError as error:
        assert all(line.startswith("f.yaml: ray_tune.") for line in str(error).splitlines())
    else:
        for _, domain in domains_of(config.search_space):
            low, high = getattr(domain, "low", 0), getattr(domain, "high", 1)
            assert math.isfinite(low)
            assert low <= high
