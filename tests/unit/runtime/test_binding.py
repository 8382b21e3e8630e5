"""Which value each argument gets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_raynode.exceptions import BindingError
from airflow_provider_raynode.runtime.binding import bind, check_binding


class Trainer:
    def __call__(self, lr: float, data: Any) -> Any:
        return lr, data

    def fit(self, lr: float, data: Any) -> Any:
        return lr, data


def plain(lr, data):  # type: ignore[no-untyped-def]
    return lr, data


GOOD: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any], Any]] = [
    (plain, {"lr": 1}, {"data": 2}, (1, 2)),
    (lambda lr, data=5: (lr, data), {"lr": 1}, {}, (1, 5)),
    (lambda *, lr, data: (lr, data), {"lr": 1}, {"data": 2}, (1, 2)),
    (lambda **rest: rest, {"lr": 1}, {"data": 2}, {"lr": 1, "data": 2}),
    (lambda lr, **rest: (lr, rest), {"lr": 1, "x": 3}, {"data": 2}, (1, {"x": 3, "data": 2})),
    (lambda config: config, {"lr": 1, "x": 2}, {}, {"lr": 1, "x": 2}),
    (lambda config, data: (config, data), {"lr": 1}, {"data": 2}, ({"lr": 1}, 2)),
    (lambda config, lr: (config, lr), {"lr": 1, "x": 2}, {}, ({"lr": 1, "x": 2}, 1)),
    (lambda config: config, {"config": {"nested": 1}}, {}, {"nested": 1}),
    (lambda lr, config: (lr, config), {"lr": 1}, {"config": 2}, (1, 2)),
    (functools.partial(plain, data=7), {"lr": 1}, {}, (1, 7)),
    (Trainer(), {"lr": 1}, {"data": 2}, (1, 2)),
    (Trainer().fit, {"lr": 1}, {"data": 2}, (1, 2)),
    (lambda net: net, {"net": {"layers": 2}}, {}, {"layers": 2}),
    (lambda: 3, {}, {}, 3),
]


@pytest.mark.parametrize(("function", "config", "op_kwargs", "result"), GOOD, ids=range(len(GOOD)))
def test_values_reach_their_arguments(function: Any, config: Any, op_kwargs: Any, result: Any) -> None:
    check_binding(function, config, op_kwargs)
    assert function(**bind(function, config, op_kwargs)) == result


BAD: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any], list[str]]] = [
    (plain, {"lr": 1}, {}, ["'data' gets no value", "default"]),
    (plain, {"lr": 1, "data": 3}, {"data": 2}, ["both a hyperparameter", "'data'"]),
    (plain, {"lr": 1, "dat": 3}, {"data": 2}, ["'dat' has no argument", "did you mean 'data'"]),
    (plain, {"lr": 1}, {"data": 2, "zzz": 3}, ["op_kwargs has 'zzz'", "the arguments are: data, lr"]),
    (plain, {"learning": 1}, {}, ["'learning'", "'lr' gets no value", "'data' gets no value"]),
    (lambda lr, /: lr, {"lr": 1}, {}, ["positional-only", "remove the '/'"]),
    (lambda *args: args, {"lr": 1}, {}, ["'lr' has no argument"]),
    (lambda config: config, {}, {"data": 1}, ["op_kwargs has 'data'"]),
    (lambda config, other: config, {"lr": 1}, {}, ["'other' gets no value"]),
    (Trainer(), {"lr": 1}, {}, ["'data' gets no value"]),
]


@pytest.mark.parametrize(("function", "config", "op_kwargs", "words"), BAD, ids=range(len(BAD)))
def test_all_that_does_not_fit_is_told_at_once(function: Any, config: Any, op_kwargs: Any, words: list[str]) -> None:
    with pytest.raises(BindingError) as caught:
        check_binding(function, config, op_kwargs)
    for word in words:
        assert word in str(caught.value)


def test_a_replayed_schedule_brings_hyperparameters_of_its_own() -> None:
    check_binding(plain, (), ("data",), replayed=True)
    with pytest.raises(BindingError, match="no argument"):
        check_binding(plain, (), ("date",), replayed=True)
