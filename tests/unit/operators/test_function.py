"""How a function travels: by import path where it is installed, else by value with its neighbours."""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._function import goes_by_value, stage_function
from airflow_provider_raynode.operators._resolve import check_callable, function_name


@pytest.fixture
def store(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "catalog"))


def called_elsewhere(reference: dict, arguments: str) -> object:
    """Load the pickle in a Python that knows neither this test nor its folder, and call it."""
    code = f"import pickle, json; f = pickle.load(open({reference['uri']!r}, 'rb')); print(json.dumps(f({arguments})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_path_as_given(store: Catalog) -> None:
    ref = stage_function("pkg.mod:fn", store)
    assert (ref.import_path, ref.pickle) == ("pkg.mod:fn", None)


def test_an_installed_function_goes_by_import_path(store: Catalog) -> None:
    ref = stage_function(textwrap.dedent, store)
    assert ref.import_path == "textwrap:dedent"
    assert not goes_by_value(textwrap.dedent)


def test_lambda_closure_and_partial_go_by_value(store: Catalog) -> None:
    factor = 3

    def closure(x: int) -> int:
        return x * factor

    for function in (lambda x: x * 3, closure, functools.partial(lambda y, x: x * y, 3)):
        assert goes_by_value(function)
        ref = stage_function(function, store)
        assert ref.pickle is not None
        assert called_elsewhere(ref.pickle, "5") == 15


def test_a_dag_file_function_takes_its_neighbour_module_along(store: Catalog, tmp_path: Path) -> None:
    (tmp_path / "raynode_neighbour.py").write_text("FACTOR = 7\ndef times(x):\n    return x * FACTOR\n")
    (tmp_path / "raynode_dag_file.py").write_text(
        "import raynode_neighbour\nfrom raynode_neighbour import times\n"
        "class Model:\n    def __init__(self, x): self.x = x\n"
        "def train(x):\n    return Model(times(x)).x + raynode_neighbour.FACTOR\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import raynode_dag_file

        ref = stage_function(raynode_dag_file.train, store)
        assert ref.pickle is not None
        assert called_elsewhere(ref.pickle, "2") == 21
    finally:
        sys.path.remove(str(tmp_path))
        for name in ("raynode_dag_file", "raynode_neighbour"):
            sys.modules.pop(name, None)


def test_the_same_function_is_staged_under_the_same_name(store: Catalog) -> None:
    one = stage_function(lambda x: x + 1, store)
    assert one.pickle is not None
    assert Path(one.pickle["uri"]).name.startswith("function-")


def test_a_function_that_holds_a_lock_is_refused_with_the_remedy(store: Catalog) -> None:
    lock = threading.Lock()

    def train(x: int) -> int:
        with lock:
            return x

    with pytest.raises(ConfigError, match=r"train cannot be sent to Ray by value.*create that inside the function"):
        stage_function(train, store)


@pytest.mark.parametrize("text", ["pkg.mod.fn", "pkg:", ":fn", "pkg mod:fn", "", "pkg.mod:fn()", "../x:fn"])
def test_a_string_that_is_no_import_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="of the form"):
        check_callable(text)


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(ConfigError, match="got int"):
        check_callable(3)


def test_a_decorated_task_is_refused() -> None:
    from airflow.sdk import task

    @task
    def train(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match="decorated with @task"):
        check_callable(train)


def test_names_for_messages() -> None:
    assert function_name("a.b:c") == "a.b:c"
    assert function_name(functools.partial(textwrap.dedent)) == "dedent"


LAZY = {
    "raynode_lazy_dag.py": """
        import raynode_top

        def fit(x):
            import raynode_lazy
            from raynode_pkg import inner
            from raynode_space.deep.mod import VALUE

            return [raynode_top.plus(x), raynode_lazy.NAME, inner.VALUE, VALUE, raynode_lazy.__file__]
    """,
    "raynode_top.py": "def plus(x):\n    import raynode_third\n    return x + raynode_third.ONE",
    "raynode_third.py": "ONE = 1",
    "raynode_lazy.py": "from raynode_pkg.inner import VALUE\nNAME = f'lazy {VALUE}'",
    "raynode_pkg/__init__.py": "",
    "raynode_pkg/inner.py": "from . import other\nVALUE = other.VALUE",
    "raynode_pkg/other.py": "VALUE = 'inner'",
    "raynode_space/deep/mod.py": "VALUE = 'deep'",
    "raynode_unused.py": "raise RuntimeError('never imported')",
}
LOADS = """
import json, sys
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.function import read_function
from airflow_provider_raynode.spec import FunctionRef
print(json.dumps(read_function(FunctionRef.from_bytes(open(sys.argv[1], "rb").read()), Catalog(sys.argv[2])).load()(5)))
"""


def test_modules_that_are_imported_inside_the_function_come_along(
    store: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dags"
    for name, text in LAZY.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(folder))
    function = importlib.import_module("raynode_lazy_dag").fit
    ref = stage_function(functools.partial(function), store)
    assert ref.modules is not None
    sources = json.loads(store.read_bytes(ref.modules["uri"]))
    assert set(sources) == set(LAZY) - {"raynode_lazy_dag.py", "raynode_unused.py"}
    (tmp_path / "ref.json").write_bytes(ref.to_bytes())
    command = [sys.executable, "-c", LOADS, str(tmp_path / "ref.json"), store.uri]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [6, "lazy inner", "inner", "deep", "raynode-modules/raynode_lazy.py"]
    Path(ref.modules["uri"]).write_text("{}")
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert "the modules are not those that the spec names" in done.stderr
