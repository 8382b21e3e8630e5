"""The rooms' import rules, read from every module, and the cost-free import of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "airflow_provider_raynode"
NAME = PACKAGE.name
PURE = {"config", "catalog", "spec", "returns", "exceptions", "work", "texts", "kubernetes_api", "ray_jobs"}
# room -> rooms of the package that it may import, at any level
MAY_USE = {
    "exceptions": set(),
    "texts": set(),
    "returns": {"exceptions"},
    "config": {"exceptions", "returns"},
    "catalog": {"exceptions", "hooks"},  # hooks by name only, where Airflow is loaded already
    "spec": {"config", "exceptions", "returns", "texts"},
    "work": {"catalog", "spec"},
    "kubernetes_api": {"exceptions"},
    "ray_jobs": {"kubernetes_api"},
    "runtime": {"catalog", "config", "exceptions", "kubernetes_api", "returns", "spec", "texts", "work"},
    "hooks": {"catalog", "config", "exceptions", "launchers", "links", "spec"},
    "argo": {"catalog", "config", "exceptions", "hooks", "kubernetes_api", "operators", "ray_jobs", "runtime", "spec"},
    "launchers": {"catalog", "config", "exceptions", "hooks", "kubernetes_api", "ray_jobs", "spec"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, module_level: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: Iterator[ast.AST] | list[ast.AST]
    if module_level:
        nodes = []
        stack: list[ast.AST] = list(tree.body)
        while stack:
            node = stack.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            nodes.append(node)
            stack.extend(ast.iter_child_nodes(node))
    else:
        nodes = ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_the_rules_of_its_room(path: Path) -> None:
    here = room(path)
    tops = {name.partition(".")[0] for name in imports(path, module_level=True)}
    if here != "runtime":
        heavy = tops & {"ray", "kubernetes", "torch", "plotly", "pandas", "pyarrow", "sklearn"}
        assert not heavy, f"{path} imports {heavy} at module level"
    everywhere = set(imports(path, module_level=False))
    if here in PURE | {"runtime"}:
        assert not {name for name in everywhere if name.partition(".")[0] == "airflow"}, f"{path} imports Airflow"
    if here in PURE:
        assert not {name for name in everywhere if name.partition(".")[0] == "ray"} - {"ray.cloudpickle", "ray"}
    if here in MAY_USE:
        used = {name.split(".")[1] for name in everywhere if name.startswith(f"{NAME}.")}
        allowed = MAY_USE[here] | {here, "__version__"}
        assert used <= allowed, f"{path} uses {used - allowed}"


INTERNALS = (
    "airflow.sdk.execution_time",
    "airflow.sdk.api",
    "airflow.sdk._shared",
    "airflow.serialization",
    "airflow.models",
)


def test_airflows_internals_are_used_in_one_place_of_the_argo_room() -> None:
    for path in modules():
        if room(path) == "argo" and path.relative_to(PACKAGE).parts[1] != "task_sdk":
            used = set(imports(path, module_level=False))
            found = {name for name in used if name.startswith(INTERNALS) or "._internal" in name}
            assert not found, f"{path} uses {found}"


def test_no_module_is_named_after_nothing() -> None:
    assert not {path.name for path in modules()} & {"utils.py", "helpers.py", "common.py", "misc.py"}


def fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = "[m for m in sys.modules if m.partition('.')[0] in ('ray','pandas','pyarrow','kubernetes','torch','plotly')]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, {NAME}; print({HEAVY}, 'airflow' in sys.modules)"
    assert fresh_python(code) == "[] False"


def test_every_public_name_loads() -> None:
    code = f"import {NAME} as p; print([n for n in p.__all__ if getattr(p, n) is None])"
    assert fresh_python(code) == "[]"


def test_parsing_a_dag_with_a_node_imports_no_ray_and_opens_no_connection() -> None:
    dag_file = PACKAGE.parent / "dags" / "hyperparameter_tuning.py"
    code = f"""
import os, socket, sys
from airflow.dag_processing.dagbag import DagBag
def refuse(*args, **kwargs): raise AssertionError("a network connection at parse time")
socket.socket.connect = refuse
bag = DagBag(os.devnull, collect_dags=False)
(dag,) = bag.process_file({str(dag_file)!r}, only_if_updated=False, safe_mode=False)
assert not bag.import_errors, bag.import_errors
assert "ray_hyperparameter_tuning.tune" in dag.task_ids
print({HEAVY})
"""
    assert fresh_python(code).splitlines()[-1] == "[]"
