"""`ray_map` on a real Ray: every item's result in its place, whatever fails, dies, hangs or is killed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from driven import Ran
from plain_work import Node

from airflow_provider_raynode import catalog, context, report
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.spec import NodeProgress

pytestmark = pytest.mark.ray

Mapped = Callable[..., Ran]


@pytest.fixture
def mapped(connected: None, tmp_path: Path) -> Mapped:
    """Run a function over `items`."""

    def ran(function: Any, items: Any, op_kwargs: dict[str, Any] | None = None, **section: Any) -> Ran:
        config = {"ray_map": {"over": "item", **section}}
        return Node(tmp_path, function, config, {"item": items, **(op_kwargs or {})}).run()

    return ran


def test_results_in_order(mapped: Mapped) -> None:
    def square(item: int, plus: int) -> int:
        return item * item + plus

    ran = mapped(square, list(range(2_000)), {"plus": 1})
    assert ran.code == 0, ran.result.failure
    assert ran.output("results") == [each * each + 1 for each in range(2_000)]
    assert ran.result.outputs["results"]["kind"] == "json"
    end = ran.result.items
    assert end is not None
    assert (end.items, end.succeeded, end.failed, end.restored, end.ending) == (2000, 2000, 0, 0, "all_items")
    # Nothing is left of what the attempt kept for a retry.
    assert not ran.node.exists(f"{ran.node.prefix_uri}/experiment")


def test_what_an_item_is(mapped: Mapped, tmp_path: Path) -> None:
    """Lists in every form, with and without batches; references among the items are loaded."""
    kind = lambda item: (type(item).__name__, len(item) if hasattr(item, "__len__") else item)  # noqa: E731
    assert mapped(kind, [1, 2.5, "a"]).output("results") == [("int", 1), ("float", 2.5), ("str", 1)]
    assert mapped(kind, (1, None)).output("results") == [("int", 1), ("NoneType", None)]
    assert mapped(kind, range(3), batch_size=2).output("results") == [("list", 2), ("list", 1)]
    assert mapped(kind, np.arange(4.0), batch_size=3).output("results") == [("ndarray", 3), ("ndarray", 1)]
    node = Catalog(str(tmp_path)).at("elsewhere")
    refs = [node.put(np.full(3, number), f"array_{number}") for number in range(3)]
    assert mapped(lambda item: float(item.sum()), refs).output("results") == [0.0, 3.0, 6.0]
    assert mapped(lambda item: item, node.put([5, 6], "list")).output("results") == [5, 6]


def test_rows_of_a_table(mapped: Mapped, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    node = Catalog(str(tmp_path)).at("tables")
    frame = pd.DataFrame({"x": range(10), "name": list("abcdefghij")})
    ref = node.put(frame, "frame")
    assert mapped(lambda item: item, ref).output("results") == frame.to_dict("records")
    parts = mapped(lambda item: (item.index[0], item["x"].sum()), ref, batch_size=4).output("results")
    assert parts == [(0, 6), (4, 22), (8, 17)]
    named = node.put(frame.set_index("name"), "named")
    assert mapped(lambda item: list(item.index), named, batch_size=5).output("results") == [
        list("abcde"),
        list("fghij"),
    ]
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(3):
        pq.write_table(pa.table({"x": [number * 10, number * 10 + 1]}), folder / f"part-{number}.parquet")
    of_folder = node.put(folder, "folder")
    assert mapped(lambda item: item["x"], of_folder).output("results") == [0, 1, 10, 11, 20, 21]
    assert mapped(lambda item: list(item["x"]), of_folder, batch_size=3).output("results") == [[0, 1, 10], [11, 20, 21]]


def test_few_and_none(mapped: Mapped) -> None:
    ran = mapped(lambda item: item, [])
    assert ran.code == 0
    assert ran.output("results") == []
    assert ran.result.items is not None
    assert ran.result.items.whole
    assert mapped(lambda item: item, [None]).output("results") == [None]
    assert mapped(lambda item: item, [3, 3, 3]).output("results") == [3, 3, 3]


def test_results_of_every_kind(mapped: Mapped) -> None:
    results = [1, math.nan, math.inf, (1, 2), {3}, b"x", "\udce9", None, np.float64(2), {"a": [True]}]
    ran = mapped(lambda item, results: results[item], list(range(len(results))), {"results": results})
    assert ran.code == 0, ran.result.failure
    found = ran.output("results")
    assert ran.result.outputs["results"]["kind"] == "pickled"
    assert [repr(each) for each in found] == [repr(each) for each in results]


def test_a_result_is_kept_as_it_was(mapped: Mapped) -> None:
    """A function that returns the same object again and again has not changed what it returned before."""

    def append(item: int, seen: list[int]) -> list[int]:
        seen.append(item)
        return seen

    found = mapped(append, [1, 2, 3], {"seen": []}, max_concurrent=1).output("results")
    assert found == [[1], [1, 2], [1, 2, 3]]


def test_one_that_fails_ends_the_map(mapped: Mapped) -> None:
    def half(item: int) -> float:
        if item == 700:
            raise ValueError("unlucky")
        return item / 2

    ran = mapped(half, list(range(1000)))
    assert ran.failure.type == "ValueError"
    assert "item 700: unlucky" in ran.failure.message
    assert ran.failure.item == 700
    assert "half" in ran.failure.traceback
    end = ran.result.items
    assert end is not None
    assert (end.ending, end.failed) == ("failed_item", 1)
    assert end.succeeded >= 600


def test_failures_are_kept(mapped: Mapped) -> None:
    def f(item: int) -> Any:
        if item == 3:
            raise KeyError("three")
        if item == 5:
            raise SystemExit(1)
        if item == 8:
            return (each for each in [1])
        if item == 9:
            return threading.Lock()
        return item

    ran = mapped(f, list(range(12)), on_error="keep")
    assert ran.code == 0, ran.result.failure
    expected: list[Any] = list(range(12))
    for index in (3, 5, 8, 9):
        expected[index] = None
    assert ran.output("results") == expected
    assert ran.result.failed == (3, 5, 8, 9)
    errors = ran.output("errors")
    assert [error["index"] for error in errors] == [3, 5, 8, 9]
    assert [error["type"] for error in errors] == ["KeyError", "SystemExit", "RayNodeError", "RayNodeError"]
    assert "in f" in errors[0]["traceback"]
    assert "generator" in errors[2]["message"]
    assert "4 of 12 items failed" in ran.result.warnings[0]


def test_every_item_failed(mapped: Mapped) -> None:
    def f(item: int) -> None:
        raise ValueError(f"no {item}")

    ran = mapped(f, [1, 2, 3], on_error="keep")
    assert ran.failure.type == "AllItemsFailed"
    assert "item 0: ValueError: no 1" in ran.failure.message
    assert not ran.node.exists(f"{ran.node.prefix_uri}/experiment/map.json")


@pytest.mark.parametrize("how", ["kill", "_exit"])
def test_an_item_that_ends_its_worker(mapped: Mapped, how: str) -> None:
    def f(item: int) -> int:
        if item == 77:
            os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else os._exit(7)
        return -item

    ran = mapped(f, list(range(200)), on_error="keep", max_retries=0)
    assert ran.code == 0, ran.result.failure
    assert ran.result.failed == (77,)
    assert ran.output("results") == [None if each == 77 else -each for each in range(200)]
    [error] = ran.output("errors")
    assert (error["type"], error["index"]) == ("WorkerDied" if how == "kill" else "ProcessExit", 77)


def test_an_item_that_hangs(mapped: Mapped) -> None:
    def f(item: int) -> int:
        if item == 4:
            time.sleep(600)
        return item

    ran = mapped(f, list(range(10)), on_error="keep", item_timeout_s=1)
    assert ran.code == 0, ran.result.failure
    assert ran.output("results") == [None if each == 4 else each for each in range(10)]
    [error] = ran.output("errors")
    assert error["type"] == "ItemTimeout"
    assert "item 4 ran longer than ray_map.item_timeout_s (1 s)" in error["message"]


def test_large_items_and_results(mapped: Mapped) -> None:
    """Ten items of 10 MB, and their results: batches are bounded by bytes as well."""
    ran = mapped(lambda item: item * 2, [np.full(1_250_000, number, dtype=float) for number in range(10)])
    found = ran.output("results")
    assert [(each[0], each.size) for each in found] == [(number * 2.0, 1_250_000) for number in range(10)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"a": 1}, "is a dict"),
        ("abc", "is text ('abc')"),
        ({1, 2}, "is a set, whose items have no order"),
        (5, "is a int"),
    ],
)
def test_what_has_no_items(mapped: Mapped, items: Any, message: str) -> None:
    failure = mapped(lambda item: item, items).failure
    assert failure.type == "BindingError"
    assert "op_kwargs['item'], which ray_map.over names," in failure.message
    assert message in failure.message


def test_over_names_an_argument(mapped: Mapped) -> None:
    assert "did you mean 'item'" in mapped(lambda item: item, [1], over="items").failure.message
    assert "argument 'other' gets no value" in mapped(lambda item, other: item, [1]).failure.message


def test_reports_have_no_meaning(mapped: Mapped) -> None:
    assert "report() has no meaning in ray_map" in mapped(lambda item: report({"a": item}), [1]).failure.message


# -- from attempt to attempt -------------------------------------------------------------------------------------------


def counted(item: int, folder: str, fail: list[int]) -> int:
    with (Path(folder) / f"{item}").open("a") as stream:
        stream.write("x")
    if item in fail and not (Path(folder) / "mended").exists():
        raise ValueError("not yet")
    return item + 1


def calls(folder: Path, item: int) -> int:
    file = folder / f"{item}"
    return len(file.read_text()) if file.exists() else 0


def test_a_retry_runs_what_is_missing(connected: None, tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    node = Node(
        tmp_path,
        counted,
        {"ray_map": {"over": "item"}},
        {"item": list(range(300)), "folder": str(folder), "fail": [200]},
    )
    first = node.run()
    assert first.failure.item == 200
    assert first.result.items is not None
    done = first.result.items.succeeded
    (folder / "mended").touch()
    second = node.run(search_of=1)
    assert second.code == 0, second.result.failure
    assert second.output("results") == list(range(1, 301))
    assert second.result.items is not None
    assert second.result.items.restored == second.result.restored == done >= 100
    assert calls(folder, 200) == 2
    assert sum(calls(folder, item) for item in range(300)) == 301


def test_damaged_parts_are_run_again(connected: None, tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    op_kwargs = {"item": list(range(60)), "folder": str(folder), "fail": [59]}
    node = Node(tmp_path, counted, {"ray_map": {"over": "item", "max_concurrent": 1}}, op_kwargs)
    first = node.run()
    assert first.failure.item == 59
    (folder / "mended").touch()
    [part, *_] = sorted(Path(node.node.prefix_uri).glob("experiment/*/parts/*.json"))
    part.write_bytes(part.read_bytes()[:-1])
    second = node.run(search_of=1)
    assert second.output("results") == list(range(1, 61))
    assert calls(folder, 0) == 2
    assert calls(folder, 30) == 1


def test_another_map_is_refused(connected: None, tmp_path: Path) -> None:
    node = Node(
        tmp_path, counted, {"ray_map": {"over": "item"}}, {"item": [1, 2], "folder": str(tmp_path), "fail": [2]}
    )
    assert node.run().code == 1
    node.op_kwargs["item"] = [1, 2, 3]
    failure = node.run(search_of=1).failure
    assert failure.type == "SearchStateError"
    assert "op_kwargs" in failure.message
    node.fields["on_change"] = "restart"
    (tmp_path / "mended").touch()
    assert node.run(search_of=1).output("results") == [2, 3, 4]


DRIVER = "import sys; from airflow_provider_raynode.runtime.driver import main; sys.exit(main(sys.argv[1:]))"


def slow(item: int, folder: str) -> int:
    with (Path(folder) / f"{item}").open("a") as stream:
        stream.write("x")
    time.sleep(0.05)
    return item


def test_a_driver_that_is_killed(tmp_path: Path) -> None:
    """An embedded driver, killed with its Ray in the middle; the next attempt runs the rest."""
    folder = tmp_path / "calls"
    folder.mkdir()
    node = Node(tmp_path, slow, {"ray_map": {"over": "item"}}, {"item": list(range(400)), "folder": str(folder)})
    job, spec = node.write()
    command = [sys.executable, "-c", DRIVER, "--spec", job.spec_uri, "--sha256", job.spec_sha256, "--local"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            end = time.monotonic() + 90
            while sum(1 for _ in folder.iterdir()) < 120 and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            kill_family(process.pid)
    assert node.node.exists(spec.state_uri)
    before = {int(path.name) for path in folder.iterdir()}
    assert 120 <= len(before) < 400
    job, _ = node.write(search_of=1)
    code = subprocess.run([*command[:4], job.spec_uri, "--sha256", job.spec_sha256, "--local"], timeout=120).returncode
    ran = Ran(job, node.node, code)
    assert ran.code == 0, ran.result.failure
    assert ran.output("results") == list(range(400))
    assert ran.result.restored >= 40
    again = sum(calls(folder, item) - 1 for item in range(400))
    assert again == len(before) - ran.result.restored


def kill_family(pid: int) -> None:
    """Kill a process that this test started, and all that it has started."""
    import psutil

    family = [psutil.Process(pid)]
    family += family[0].children(recursive=True)
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(family, timeout=10)


def endless(item: int) -> int:
    time.sleep(0.02)
    return item


def test_a_driver_that_is_stopped(tmp_path: Path) -> None:
    """SIGTERM: the result says how far it was, within seconds, and the retry goes on."""
    node = Node(tmp_path, endless, {"ray_map": {"over": "item"}}, {"item": list(range(100_000))})
    job, _ = node.write()
    command = [sys.executable, "-c", DRIVER, "--spec", job.spec_uri, "--sha256", job.spec_sha256, "--local"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            progress = f"{job.attempt_prefix}/progress.json"
            end = time.monotonic() + 90
            while time.monotonic() < end:
                with contextlib.suppress(Exception):
                    told = NodeProgress.from_bytes(node.node.read_bytes(progress))
                    if told.terminated > 50 and told.eta_s:
                        break
                time.sleep(0.1)
            assert (told.work, told.total) == ("map", 100_000)
            process.terminate()
            assert process.wait(timeout=20) == 1
        finally:
            with contextlib.suppress(Exception):
                kill_family(process.pid)
    ran = Ran(job, node.node, 1)
    assert ran.failure.type == "Stopped"
    assert ran.result.items is not None
    assert ran.result.items.ending == "stopped"
    assert ran.result.items.succeeded >= 50


def hold_the_lock(item: int) -> int:
    if item == 3:
        import re

        re.match(r"(a+)+b", "a" * 60)  # backtracks for centuries, and Python's lock is never free
    return item


def test_an_item_that_holds_pythons_lock(mapped: Mapped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker cannot end itself: the driver does."""
    from airflow_provider_raynode.runtime import map_pool

    monkeypatch.setattr(map_pool, "_SLACK_S", 0.5)
    ran = mapped(hold_the_lock, list(range(6)), on_error="keep", item_timeout_s=0.5)
    assert ran.code == 0, ran.result.failure
    assert ran.output("results") == [0, 1, 2, None, 4, 5]
    assert ran.output("errors")[0]["type"] == "ItemTimeout"


def talk(item: int) -> None:
    print(f"this is {item}")
    os.system(f"echo from a child of {item}")
    context().logger.info("run %s", context().run_id)
    assert catalog.load(catalog.put([item], "own")) == [item]
    if item == 2:
        raise ValueError("two")


def test_lines_and_context(mapped: Mapped, capfd: pytest.CaptureFixture[str]) -> None:
    ran = mapped(talk, [0, 1, 2], on_error="keep")
    assert ran.code == 0, ran.result.failure
    lines = capfd.readouterr().out.splitlines()
    for item in range(3):
        assert f"[item {item}] this is {item}" in lines
        assert f"[item {item}] from a child of {item}" in lines
    assert sum(line.startswith("[item 1] run run_") for line in lines) == 1
    assert "[item 2] failed: ValueError: two" in lines
    assert lines.index("[item 2] failed: ValueError: two") > lines.index("[item 2] this is 2")


SECRET = "sk-0123456789abcdef"


def tell_secret(item: int) -> int:
    key = context().variable("api_key")
    print("the key is", key, os.environ["API_KEY"] == key)
    if item == 1:
        raise ValueError(f"cannot log in with {key}")
    return len(key)


def test_secrets_stay_secret(tmp_path: Path) -> None:
    """Every item may use them; no line, error or file shows one."""
    from airflow_provider_raynode.runtime.secrets import seal

    section = {"over": "item", "on_error": "keep"}
    node = Node(tmp_path, tell_secret, {"ray_map": section}, {"item": [0, 1]}, secrets=("var:api_key as API_KEY",))
    job, spec = node.write()
    sealed, key = seal({"var:api_key": SECRET}, spec.submission_id)
    node.node.write_bytes(f"{spec.attempt_prefix}/secrets-ab12.bin", sealed)
    command = [sys.executable, "-c", DRIVER, "--spec", job.spec_uri, "--sha256", job.spec_sha256, "--local"]
    env = {**os.environ, "RAYNODE_SECRETS_KEY": key, "RAYNODE_SECRETS_FILE": "secrets-ab12.bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = Ran(job, node.node, 0)
    assert ran.output("results") == [len(SECRET), None]
    assert "[item 0] the key is *** True" in done.stdout
    assert ran.output("errors")[0]["message"] == "cannot log in with ***"
    assert SECRET not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not node.node.exists(f"{spec.attempt_prefix}/secrets-ab12.bin")
