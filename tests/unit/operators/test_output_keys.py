"""What fan-in pushes is what a DAG file may ask for."""

from __future__ import annotations

import ast
import inspect

from airflow_provider_raynode import RayFanInOperator, RayNode
from airflow_provider_raynode.operators._output import OUTPUT_KEYS


def test_every_key_that_fan_in_pushes_can_be_asked_for() -> None:
    tree = ast.parse(inspect.getsource(inspect.getmodule(RayFanInOperator)))  # type: ignore[arg-type]
    dicts = [
        [key.value for key in each.keys if isinstance(key, ast.Constant)]
        for each in ast.walk(tree)
        if isinstance(each, ast.Dict)
    ]
    (pushed,) = [keys for keys in dicts if "best_trial" in keys]
    assert tuple(pushed) == OUTPUT_KEYS, "a new key goes into OUTPUT_KEYS of operators/_output.py as well"
    missing = [key for key in OUTPUT_KEYS if not isinstance(getattr(RayNode, key, None), property)]
    assert not missing, f"RayNode has no property {missing}"
