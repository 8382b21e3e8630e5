"""A search whose trials are distributed trainings, on one embedded Ray of four CPUs: two trials of two workers fit."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from staged import result_of, stage

from airflow_provider_raynode import context, get_checkpoint, report
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.launchers.local import LocalLauncher
from airflow_provider_raynode.operators._attempt import as_attempt
from airflow_provider_raynode.runtime.driver import Driver, read_spec
from airflow_provider_raynode.spec import NodeResult, digest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
TWO = {"scaling": {"num_workers": 2}}


def grid(*values: float, **rest: Any) -> dict[str, Any]:
    return {"search_space": {"x": {"type": "grid_search", "values": list(values)}}, **rest}


class Node:
    """A staged node, whose attempts run in this process."""

    def __init__(self, root: Path, function: Any, ray_tune: dict[str, Any], **options: Any) -> None:
        options.setdefault("ray_train", TWO)
        self.job, self.spec, self.catalog = stage(root, function, ray_tune, **options)

    def run(self, *, embedded: bool = False) -> NodeResult:
        spec, attempt = read_spec(self.job.spec_uri, self.job.spec_sha256)
        Driver(spec, self.job.spec_sha256, attempt, embedded=embedded).run()
        return result_of(self.job, self.catalog)

    def next_attempt(self) -> None:
        """Let the next attempt go on with the search."""
        first = self.spec.search_of or self.spec.attempt
        self.spec = as_attempt(self.spec, self.spec.attempt + 1).model_copy(update={"search_of": first})
        data = self.spec.to_bytes()
        uri = f"{self.spec.attempt_prefix}/spec.json"
        self.catalog.write_bytes(uri, data)
        self.job = self.job.model_copy(
            update={
                "attempt": self.spec.attempt,
                "submission_id": self.spec.submission_id,
                "spec_uri": uri,
                "spec_sha256": digest(data),
            }
        )

    def load(self, reference: dict[str, Any] | None) -> Any:
        assert reference is not None
        return self.catalog.load(reference)


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    import ray

    os.environ["RAY_DEDUP_LOGS"] = "0"
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level=logging.WARNING)
    yield
    ray.shutdown()


@pytest.fixture
def node(four_cpus: None, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Stage a function with a search of trainings."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def staged(function: Any, ray_tune: dict[str, Any], **options: Any) -> Node:
        return Node(tmp_path, function, ray_tune, **options)

    yield staged
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert all_free()


def all_free() -> bool:
    """Whether everything that the search had reserved is there again, within a few seconds."""
    import ray

    end = time.monotonic() + 10
    while time.monotonic() < end:
        groups = [group["state"] for group in ray.util.placement_group_table().values()]
        if ray.available_resources().get("CPU") == 4 and set(groups) <= {"REMOVED"}:
            return True
        time.sleep(0.2)
    return False


def succeeded(result: NodeResult) -> NodeResult:
    assert result.failure is None, f"{result.failure.type}: {result.failure.message}\n{result.failure.traceback}"
    return result


def test_each_trial_is_a_training_with_the_hyperparameters_on_every_worker(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    def train(x: int, offset: int, folder: str) -> dict[str, Any]:
        run = context()
        Path(folder, f"{run.trial_id}-{run.rank}-{run.world_size}-{run.local_rank}-{x + offset}").touch()
        for step in range(3):
            report({"score": x * 10 + step if run.rank == 0 else -1}, checkpoint={"x": x, "step": step})
        return {"model": [run.rank, x]}

    seen = tmp_path / "seen"
    seen.mkdir()
    staged = node(train, grid(1, 2, 3), op_kwargs={"offset": 5, "folder": str(seen)}, returns=["model"])
    result = succeeded(staged.run())
    assert result.best is not None
    assert (result.best.config, result.best.metrics["score"]) == ({"x": 3}, 32)
    assert result.completion is not None
    assert (result.completion.finished, result.completion.whole) == (3, True)
    assert staged.load(result.outputs["model"]) == [0, 3]
    assert staged.load(result.outputs["checkpoint"]) == {"x": 3, "step": 2}
    table = staged.load(result.trials).set_index("config/x")
    assert list(table["score"]) == [12, 22, 32]
    steps = staged.load(result.steps)
    assert sorted(steps["training_iteration"]) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    trials = dict(zip(table["trial_id"], table.index, strict=True))
    expected = {f"{trial}-{rank}-2-{rank}-{x + 5}" for trial, x in trials.items() for rank in (0, 1)}
    assert {each.name for each in seen.iterdir()} == expected


def test_what_the_scheduler_stops_gives_its_place_to_the_next(node: Callable[..., Node], tmp_path: Path) -> None:
    def train(x: int, folder: str) -> None:
        run = context()
        # The best of them is ahead of the others.
        while x != 1 and not Path(folder, "ahead").exists():
            time.sleep(0.05)
        for step in range(40 if x == 1 else 300):
            if (x, step) == (1, 30):
                Path(folder, "ahead").write_text("0")
            for _ in range(2):
                time.sleep(0.05)
                Path(folder, f"{run.trial_id}-{run.rank}").write_text(str(time.time()))
            report({"score": -x - step / 1000})

    beats = tmp_path / "beats"
    beats.mkdir()
    scheduler = {"type": "ASHAScheduler", "max_t": 300, "grace_period": 3, "reduction_factor": 2}
    # The first is the best: each of the others is stopped at its third report, or computes 300 steps.
    staged = node(train, grid(1, 2, 3, 4, 5, scheduler=scheduler), op_kwargs={"folder": str(beats)})
    result = succeeded(staged.run())
    assert result.completion is not None
    assert (result.completion.finished, result.completion.early_stopped) == (1, 4)
    last = max(float(each.read_text()) for each in beats.iterdir())
    time.sleep(1)
    assert max(float(each.read_text()) for each in beats.iterdir()) == last
    assert last < result.ended.timestamp()
    steps = staged.load(result.steps)
    assert steps.groupby("trial_id").size().max() == 40
    assert steps.groupby("trial_id").size().nsmallest(4).max() <= 6


def test_more_trials_at_a_time_than_fit_wait_their_turn(node: Callable[..., Node], tmp_path: Path) -> None:
    import ray

    def train(x: int, folder: str) -> None:
        begin = time.time()
        time.sleep(0.5)
        Path(folder, f"{context().trial_id}-{context().rank}").write_text(f"{begin} {time.time()}")
        report({"score": x})

    # Another job's: of four CPUs three are left, where one trial of 2.5 fits.
    other = ray.util.placement_group([{"CPU": 1}])
    ray.get(other.ready())
    times = tmp_path / "times"
    times.mkdir()
    search = grid(1, 2, 3, max_concurrent_trials=3, resources={"num_cpus": 0.5})
    try:
        result = succeeded(node(train, search, op_kwargs={"folder": str(times)}).run())
    finally:
        ray.util.remove_placement_group(other)
    assert result.completion is not None
    assert result.completion.finished == 3
    spans = sorted(tuple(map(float, each.read_text().split())) for each in times.iterdir() if each.name.endswith("-0"))
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans)), spans


def test_a_trial_that_can_never_fit_is_an_error_at_once(node: Callable[..., Node]) -> None:
    def train(x: int) -> None:
        report({"score": x})

    begin = time.monotonic()
    search, workers = grid(1, resources={"num_cpus": 1}), {"scaling": {"num_workers": 4}}
    result = node(train, search, ray_train=workers).run()
    assert time.monotonic() - begin < 30
    assert result.failure is not None
    assert result.failure.type == "ClusterError"
    for part in ("trial needs 5 CPUs", "4"):
        assert part in result.failure.message
    assert result.steps is None


def test_a_trial_that_lost_a_worker_goes_on_from_its_checkpoint(node: Callable[..., Node], tmp_path: Path) -> None:
    def train(x: int, folder: str) -> None:
        run, saved = context(), get_checkpoint()
        begin = 0 if saved is None else saved["step"] + 1
        Path(folder, f"{run.trial_id}-{run.rank}-{begin}").touch()
        for step in range(begin, 5):
            if step == 3 and begin == 0 and run.rank == 1 and x == 2:
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)
            checkpoint = {"step": step} if step % 2 == 0 and run.rank == 0 else None
            report({"score": x, "step": step, "begin": begin}, checkpoint=checkpoint)

    starts = tmp_path / "starts"
    starts.mkdir()
    train_config = {**TWO, "failure": {"max_failures": 1}}
    staged = node(train, grid(1, 2), ray_train=train_config, op_kwargs={"folder": str(starts)})
    result = succeeded(staged.run())
    assert result.trial_states == {"TERMINATED": 2}
    assert result.best is not None
    lost = result.best.trial_id
    assert {each.name for each in starts.iterdir() if lost in each.name} == {
        f"{lost}-{rank}-{begin}" for rank in (0, 1) for begin in (0, 3)
    }
    steps = staged.load(result.steps).query("trial_id == @lost")
    assert list(steps["training_iteration"]) == [1, 2, 3, 4, 5]
    assert list(steps["begin"]) == [0, 0, 0, 3, 3]


def test_a_rank_that_raises_fails_its_trial_with_its_error(node: Callable[..., Node]) -> None:
    def train(x: int) -> None:
        report({"score": x})
        if x == 1 and context().rank == 1:
            raise ValueError("rank one has had enough")
        report({"score": x})

    result = succeeded(node(train, grid(1, 2)).run())
    assert result.trial_states == {"ERROR": 1, "TERMINATED": 1}
    (warning,) = [each for each in result.warnings if "failed" in each]
    assert "ValueError" in warning
    assert "rank one has had enough" in warning


def test_a_trial_whose_process_is_killed_goes_on_and_leaves_no_worker(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    def train(x: int, folder: str) -> None:
        run, saved = context(), get_checkpoint()
        begin = 0 if saved is None else saved["step"] + 1
        Path(folder, f"{run.rank}-{begin}").write_text(str(os.getpid()))
        for step in range(begin, 40 if begin == 0 else begin + 2):
            time.sleep(0.1)
            report({"score": x, "begin": begin}, checkpoint={"step": step} if run.rank == 0 else None)

    marks = tmp_path / "marks"
    marks.mkdir()
    killed: list[list[int]] = []

    def kill() -> None:
        while len(list(marks.iterdir())) < 2:
            time.sleep(0.1)
        time.sleep(1.5)
        workers = [int(each.read_text()) for each in marks.iterdir()]
        # Those of this test's own Ray.
        trial = next(each for each in psutil.Process().children(recursive=True) if "func.train" in _title(each))
        trial.kill()
        time.sleep(3)
        killed.append([pid for pid in workers if computes(pid)])

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    search = grid(1, failure={"max_failures": 1})
    staged = node(train, search, op_kwargs={"folder": str(marks)})
    result = succeeded(staged.run())
    thread.join(timeout=10)
    assert killed == [[]]
    steps = staged.load(result.steps)
    numbers = list(steps["training_iteration"])
    assert numbers == list(range(1, len(numbers) + 1))
    assert steps["begin"].iloc[-1] > 0


def computes(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return "".join(process.cmdline()).lower().replace("implicitfunc", "func")
    return ""


def test_each_trial_streams_its_datasets(node: Callable[..., Node], tmp_path: Path) -> None:
    import pandas as pd

    def train(x: int, rows: Any) -> None:
        values = [value for batch in rows.iter_batches(batch_size=4) for value in batch["value"].tolist()]
        report({"score": x, "rows": len(values), "total": sum(values)})

    data = Catalog(str(tmp_path)).at(f"{tmp_path}/data")
    rows = data.put(pd.DataFrame({"value": range(10)}), "rows", kind="parquet")
    staged = node(train, grid(1, 2), op_kwargs={"rows": dict(rows)})
    result = succeeded(staged.run())
    assert list(staged.load(result.trials)["rows"]) == [5, 5]
    assert list(staged.load(result.trials)["total"]) == [0 + 1 + 2 + 3 + 4] * 2


def test_a_later_attempt_goes_on_from_the_trials_checkpoints(node: Callable[..., Node], tmp_path: Path) -> None:
    def train(x: int, folder: str) -> None:
        run, saved = context(), get_checkpoint()
        begin = 0 if saved is None else saved["step"] + 1
        for step in range(begin, 4):
            if step == 2 and x == 2 and not Path(folder, "again").exists():
                raise ValueError("not yet")
            report({"score": x * 10 + begin}, checkpoint={"step": step} if run.rank == 0 else None)

    search = grid(1, 2, failure={"fail_fast": True, "on_resume": "resume"}, max_concurrent_trials=1)
    staged = node(train, search, op_kwargs={"folder": str(tmp_path)})
    first = staged.run()
    assert first.failure is not None
    assert first.failure.type == "FailFast"
    (tmp_path / "again").touch()
    staged.next_attempt()
    result = succeeded(staged.run())
    assert result.best is not None
    assert (result.best.metrics["score"], result.restored) == (22, 1)
    assert result.completion is not None
    assert result.completion.finished == 2


def test_population_based_training_hands_checkpoints_on(node: Callable[..., Node]) -> None:
    def train(x: float) -> None:
        run, saved = context(), get_checkpoint()
        state = saved or {"step": 0, "total": 0.0, "path": []}
        while state["step"] < 8:
            state = {"step": state["step"] + 1, "total": state["total"] + x, "path": [*state["path"], x]}
            report({"score": state["total"], "own": x}, checkpoint=state if run.rank == 0 else None)

    scheduler = {
        "type": "PopulationBasedTraining",
        "perturbation_interval": 3,
        "hyperparam_mutations": {"x": [1.0, 10.0]},
        "quantile_fraction": 0.5,
        "resample_probability": 0.0,
        "synch": True,
    }
    staged = node(train, grid(1.0, 10.0, scheduler=scheduler))
    result = succeeded(staged.run())
    best = staged.load(result.outputs["checkpoint"])
    assert best["step"] == 8
    assert best["total"] == sum(best["path"])
    table = staged.load(result.trials)
    # The worse of the two has gone on from the better one's three steps of 10.
    assert table["score"].min() >= 30 + 5


def test_a_killed_driver_leaves_no_worker_and_its_retry_goes_on(tmp_path: Path) -> None:
    def train(x: int, folder: str) -> None:
        run, saved = context(), get_checkpoint()
        begin = 0 if saved is None else saved["step"] + 1
        Path(folder, f"{x}-{run.rank}-{begin}").write_text(str(os.getpid()))
        for step in range(begin, 12):
            if x == 2:
                time.sleep(0.4)
            report({"score": x, "begin": begin}, checkpoint={"step": step} if run.rank == 0 else None)
            if x == 2 and step == 3 and run.rank == 0:
                Path(folder, "three").touch()

    starts = tmp_path / "starts"
    starts.mkdir()
    # The embedded Ray has this machine's CPUs.
    workers = {"scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}}}
    staged = Node(
        tmp_path, train, grid(1, 2, max_concurrent_trials=1), ray_train=workers, op_kwargs={"folder": str(starts)}
    )
    with LocalLauncher() as launcher:
        launcher.ensure(staged.job)
        end = time.monotonic() + 120
        while not (starts / "three").exists():
            assert time.monotonic() < end, launcher.read_log(staged.job, 0, final=True).text
            time.sleep(0.05)
        time.sleep(1.5)  # what was reported has had time to reach the disk
        assert launcher._process is not None
        os.kill(launcher._process.pid, signal.SIGKILL)
        while not launcher.status(staged.job).state.ended:
            time.sleep(0.05)
    pids = [int(each.read_text()) for each in starts.iterdir() if each.name != "three"]
    end = time.monotonic() + 20
    while left := [pid for pid in pids if computes(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.2)
    staged.next_attempt()
    with LocalLauncher() as launcher:
        launcher.ensure(staged.job)
        while not launcher.status(staged.job).state.ended:
            time.sleep(0.05)
        log = launcher.read_log(staged.job, 0, final=True).text
    result = succeeded(result_of(staged.job, staged.catalog))
    assert result.restored == 1, log
    assert len([each for each in starts.iterdir() if each.name.startswith("1-0")]) == 1
    steps = staged.load(result.steps)
    second = steps[steps["trial_id"] == result.best.trial_id] if result.best else steps
    assert list(second["training_iteration"]) == list(range(1, 13))
    assert second["begin"].iloc[-1] >= 1


def test_the_example(run_dag: Callable[..., Any], load_dag: Callable[..., Any]) -> None:
    """As it is, on an embedded Ray of its own."""
    pytest.importorskip("torch")
    result = run_dag(load_dag(ROOT / "dags" / "tune_over_train.py"))
    assert result.state == "success", result.states
    assert result.xcom("evaluate") > 0.85
    tuned = result.xcom("ray_tuned_training.fan_in")
    assert len(json.dumps(result.raw_xcom("ray_tuned_training.fan_in"))) < 4096
    assert tuned["completion"]["asked"] == 4
