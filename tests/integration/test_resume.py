"""A search whose driver was killed goes on: no finished trial runs again, the others go on from their checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from node_attempts import Node

from airflow_provider_raynode import get_checkpoint, report
from airflow_provider_raynode.spec import NodeSpec

pytestmark = pytest.mark.ray


def marks(folder: Path) -> Counter[str]:
    """How often each name was marked, by the files `name-*` in a folder."""
    return Counter(path.name.partition("-")[0] for path in folder.iterdir())


def held_at(folder: Path, count: int) -> Callable[[], bool]:
    """Whether so many trials have ended, where the others wait, and what they returned has had time to reach the disk.

    That takes a tenth of a second; a busy machine needs longer.
    """

    def held() -> bool:
        if sum(marks(folder).values()) < count:
            return False
        time.sleep(2)
        return True

    return held


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "marks"
    made.mkdir()
    return made


def test_a_killed_driver_loses_no_finished_trial(tmp_path: Path, folder: Path) -> None:
    def train(x: int, folder: str) -> dict[str, Any]:
        import pathlib
        import tempfile as temporary
        import time as clock

        while x >= 6 and not pathlib.Path(folder).with_name("go on").exists():
            clock.sleep(0.05)
        clock.sleep(0.3)
        temporary.mkstemp(prefix=f"{x}-", dir=folder)
        return {"score": x, "squares": [x, x * x]}

    values = list(range(16))
    space = {"search_space": {"x": {"type": "grid_search", "values": values}}}
    node = Node(tmp_path, train, space, op_kwargs={"folder": str(folder)}, returns=["squares"])

    node.run(until=held_at(folder, 6))
    assert set(marks(folder)) == {str(value) for value in range(6)}
    folder.with_name("go on").touch()
    node.next_attempt()
    log = node.run()
    result = node.result
    assert result.state == "SUCCEEDED", log
    assert result.trial_states == {"TERMINATED": 16}
    assert result.best is not None
    assert result.best.metrics["score"] == 15
    assert node.catalog.load(result.outputs["squares"]) == [15, 225]
    kept = {path.parent.name for path in Path(node.spec.node_prefix).glob("attempt_*/outputs/*/*")}
    assert kept == {result.best.trial_id}, "outputs of the other trials, of both attempts, are gone"
    assert result.restored == 6
    assert marks(folder) == {str(value): 1 for value in values}, "no finished trial ran again"


def test_a_driver_killed_between_trials_repeats_what_nobody_had_heard_of(tmp_path: Path, folder: Path) -> None:
    def train(x: int, folder: str) -> dict[str, Any]:
        import tempfile as temporary
        import time as clock

        clock.sleep(0.3)
        temporary.mkstemp(prefix=f"{x}-", dir=folder)
        return {"score": x}

    values = list(range(16))
    space = {"search_space": {"x": {"type": "grid_search", "values": values}}}
    node = Node(tmp_path, train, space, op_kwargs={"folder": str(folder)})
    killed_at: list[float] = []

    def six_have_ended() -> bool:
        if len(marks(folder)) < 6:
            return False
        killed_at.append(time.time())
        return True

    node.run(until=six_have_ended)
    time.sleep(0.5)
    ended = {path.name.partition("-")[0]: path.stat().st_mtime for path in folder.iterdir()}
    assert 6 <= len(ended) < 16
    node.next_attempt()
    node.run()
    assert node.result.state == "SUCCEEDED"
    assert node.result.trial_states == {"TERMINATED": 16}
    again = {name for name, count in marks(folder).items() if count > 1}
    # docs/survival.md: at most what ended within the last second.
    assert again <= {name for name, at in ended.items() if at > killed_at[0] - 1}, (ended, killed_at)
    assert node.result.restored >= len(ended) - len(again)
    assert set(marks(folder)) == {str(value) for value in values}


def test_unfinished_trials_go_on_from_their_checkpoints(tmp_path: Path, folder: Path) -> None:
    def train(x: int, folder: str) -> None:
        import tempfile as temporary
        import time as clock

        step = get_checkpoint() or 0
        while step < 12:
            step += 1
            clock.sleep(0.25)
            temporary.mkstemp(prefix=f"{x}_{step}-", dir=folder)
            report({"score": x + step}, checkpoint=step)

    space = {"search_space": {"x": {"type": "grid_search", "values": [100, 200]}}, "scope": "all"}
    node = Node(tmp_path, train, space, op_kwargs={"folder": str(folder)})
    node.run(until=lambda: {"100_8", "200_8"} <= set(marks(folder)))
    node.next_attempt()
    node.run()
    assert node.result.state == "SUCCEEDED"
    assert node.result.best is not None
    assert node.result.best.metrics["score"] == 212
    counts = marks(folder)
    assert set(counts) == {f"{x}_{step}" for x in (100, 200) for step in range(1, 13)}
    assert all(counts[f"{x}_{step}"] == 1 for x in (100, 200) for step in (1, 2, 3)), counts
    assert sum(counts.values()) <= 24 + 2 * 6


@pytest.mark.parametrize("on_resume", ["restart", "keep"])
def test_failed_trials_do_as_configured(tmp_path: Path, folder: Path, on_resume: str) -> None:
    (tmp_path / "broken").touch()

    def train(x: int, folder: str, root: str) -> dict[str, Any]:
        import pathlib
        import tempfile as temporary

        temporary.mkstemp(prefix=f"{x}-", dir=folder)
        if x == 1 and pathlib.Path(root, "broken").exists():
            raise OSError("the disk is full")
        return {"score": x}

    search = {
        "search_space": {"x": {"type": "grid_search", "values": [1, 2]}},
        "failure": {"on_resume": on_resume, "min_successful": 2},
    }
    node = Node(tmp_path, train, search, op_kwargs={"folder": str(folder), "root": str(tmp_path)})
    node.run()
    failure = node.result.failure
    assert failure is not None
    assert failure.type == "TooFewSuccessful"
    assert "1 of 2 trials" in failure.message
    assert "the disk is full" in failure.message
    (tmp_path / "broken").unlink()
    node.next_attempt()
    node.run()
    assert node.result.state == ("SUCCEEDED" if on_resume == "restart" else "FAILED")
    assert marks(folder) == {"1": 2 if on_resume == "restart" else 1, "2": 1}


def test_a_resumed_search_keeps_its_algorithm_and_its_scores(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("optuna")

    def train(x: float, folder: str) -> dict[str, Any]:
        import pathlib
        import tempfile as temporary
        import time as clock

        ended, go_on = pathlib.Path(folder), pathlib.Path(folder).with_name("go on")
        while len(list(ended.iterdir())) >= 5 and not go_on.exists():
            clock.sleep(0.05)
        clock.sleep(0.25)
        temporary.mkstemp(prefix="t-", dir=folder)
        return {"score": -((x - 0.3) ** 2)}

    search = {
        "search_space": {"x": {"type": "uniform", "low": 0, "high": 1}},
        "num_samples": 14,
        "search_algorithm": "optuna",
        "seed": 3,
        "max_concurrent_trials": 2,
    }
    node = Node(tmp_path, train, search, op_kwargs={"folder": str(folder)})
    node.run(until=held_at(folder, 5))
    folder.with_name("go on").touch()
    node.next_attempt()
    node.run()
    result = node.result
    assert result.state == "SUCCEEDED"
    assert sum(result.trial_states.values()) == 14
    table = node.catalog.load(result.trials)
    assert result.best is not None
    assert result.best.metrics["score"] == table["score"].max()
    assert marks(folder)["t"] == 14, "no finished trial ran again"


def test_a_search_that_never_began_starts_anew(tmp_path: Path) -> None:
    node = Node(tmp_path, lambda x: {"score": x}, {"search_space": {"x": 1}})
    node.next_attempt()
    node.run()
    assert node.result.state == "SUCCEEDED"
    assert node.result.restored == 0


def test_another_nodes_state_is_refused(tmp_path: Path, folder: Path) -> None:
    """What Tune has written of one node, in the folder of another: the retry names it, or starts anew where it may."""

    def train(x: int, node: str, folder: str) -> dict[str, Any]:
        import pathlib
        import tempfile as temporary
        import time as clock

        while x == 3 and node == "one" and not pathlib.Path(folder).with_name("go on").exists():
            clock.sleep(0.05)
        temporary.mkstemp(prefix=f"{node}_{x}-", dir=folder)
        return {"score": x + (100 if node == "one" else 0)}

    search = {"search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}}}
    one, two = (
        Node(tmp_path, train, search, op_kwargs={"node": name, "folder": str(folder)}) for name in ("one", "two")
    )
    one.run(until=held_at(folder, 2))
    copied = Path(two.spec.experiment_prefix, two.spec.experiment_name)
    shutil.copytree(Path(one.spec.experiment_prefix, one.spec.experiment_name), copied)
    two.next_attempt()
    log = two.run()
    failure = two.result.failure
    assert failure is not None, log
    assert failure.type == "SearchStateError"
    assert f"are another search's, this one's ids begin with {two.spec.trial_prefix}" in failure.message
    assert "on_change='restart'" in failure.message
    assert not [name for name in marks(folder) if name.startswith("two")], "no trial ran"

    two.next_attempt(on_change="restart")
    log = two.run()
    assert "the search starts anew" in log
    assert two.result.state == "SUCCEEDED", log
    assert two.result.best is not None
    assert two.result.best.metrics["score"] == 3
    assert two.result.restored == 0
    assert {name: count for name, count in marks(folder).items() if name.startswith("two")} == {
        "two_1": 1, "two_2": 1, "two_3": 1,
    }  # fmt: skip


def test_a_killed_worker_process_is_the_failure_of_its_trial(tmp_path: Path, folder: Path) -> None:
    """`max_failures` covers it: the search goes on, and nobody outside hears of it."""

    def train(x: int, folder: str) -> dict[str, Any]:
        import os as system
        import pathlib
        import signal as signals
        import tempfile as temporary

        temporary.mkstemp(prefix=f"{x}-", dir=folder)
        if x == 2 and len(list(pathlib.Path(folder).glob("2-*"))) == 1:
            system.kill(system.getpid(), signals.SIGKILL)
        return {"score": x}

    search = {
        "search_space": {"x": {"type": "grid_search", "values": [1, 2, 3]}},
        "failure": {"max_failures": 1},
    }
    node = Node(tmp_path, train, search, op_kwargs={"folder": str(folder)})
    node.run()
    assert node.result.state == "SUCCEEDED"
    assert node.result.trial_states == {"TERMINATED": 3}
    assert marks(folder)["2"] == 2


# -- limits --------------------------------------------------------------------------------------------------------


def limited(node: Node, **limits: float) -> NodeSpec:
    node.next_attempt(limits=node.spec.limits.model_copy(update=limits), search_of=None)
    return node.spec


def test_a_job_ends_itself_when_its_time_is_over(tmp_path: Path) -> None:
    def train(x: int) -> dict[str, Any]:
        import time as clock

        clock.sleep(120)
        return {"score": x}

    node = Node(tmp_path, train, {"search_space": {"x": 1}})
    limited(node, run_timeout_s=12)
    begin = time.monotonic()
    node.run()
    assert time.monotonic() - begin < 60
    assert node.result.failure is not None
    assert node.result.failure.type == "RunTimeout"
    assert "run_timeout_s (12 s)" in node.result.failure.message
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if node.job.spec_uri in (process.info["cmdline"] or [])
    ]


def test_a_job_says_what_its_first_trial_waits_for(tmp_path: Path) -> None:
    """The only CPUs are taken by another program on the same Ray."""
    script = (
        "import sys, ray, time\n"
        "from airflow_provider_raynode.runtime.driver import Driver, read_spec, _prepare_environment\n"
        "_prepare_environment()\n"
        "ray.init(address='local', num_cpus=2, include_dashboard=False)\n"
        "@ray.remote(num_cpus=2)\n"
        "class Taken:\n"
        "    def ready(self): return 1\n"
        "taken = Taken.remote(); ray.get(taken.ready.remote())\n"
        "spec, attempt = read_spec(sys.argv[1], sys.argv[2])\n"
        "sys.exit(Driver(spec, sys.argv[2], attempt, embedded=False).run())\n"
    )
    node = Node(tmp_path, lambda x: {"score": x}, {"search_space": {"x": 1}})
    limited(node, startup_timeout_s=6)
    import sys

    ended = subprocess.run(
        [sys.executable, "-c", script, node.job.spec_uri, node.job.spec_sha256],
        timeout=120,
        check=False,
        capture_output=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    assert ended.returncode == 1
    failure = node.result.failure
    assert failure is not None, ended.stderr
    assert failure.type == "StartupTimeout"
    assert "asks for CPU 1, the cluster has CPU 2, free of it: CPU 0" in failure.message


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every process that a test started is gone when it ends."""
    before = {process.pid for process in psutil.process_iter()}
    yield
    end = time.monotonic() + 10
    while time.monotonic() < end:
        left = [
            process
            for process in psutil.process_iter(["name", "cmdline", "status"])
            if process.pid not in before
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and any(word in " ".join(process.info["cmdline"] or []) for word in ("raylet", "gcs_server", "ray::"))
            and "rn-" in " ".join(process.info["cmdline"] or [])
        ]
        if not left:
            return
        time.sleep(0.2)
    pytest.fail(f"left behind: {[process.info['cmdline'][:3] for process in left]}")
