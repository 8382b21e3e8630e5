"""The faults: what breaks, and what must come of it."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from standalone import alive, kill
from world import Fault, Run

_SYNC = {"deferrable": False}


def task_killed(run: Run) -> None:
    run.await_running()
    run.await_marks(2)
    run.kill_task()


def supervisor_killed(run: Run) -> None:
    run.await_running()
    run.await_marks(2)
    run.kill_task(supervisor=True)


def fan_out_killed_in_submit(run: Run) -> None:
    """The head has the job, its answer is still on the way: the proxy holds nothing back but the answer."""
    run.until(run.jobs, "the job is submitted", 60)
    run.kill_task("fan_out")
    run.proxy.become("")


def fan_out_killed_before_submit(run: Run) -> None:
    run.proxy.delay_s = 8
    run.proxy.fault = "slow"
    run.until(run.proxy.held.is_set, "fan_out submits", 60)
    run.kill_task("fan_out")
    run.proxy.become("")


def nothing(run: Run) -> None:
    """Nothing breaks here: the function does it, or the settings."""


def driver_killed(run: Run) -> None:
    run.await_marks(3)
    run.note_finished()
    kill(*run.drivers())


def stepwise_driver_killed(run: Run) -> None:
    def steps() -> bool:
        progress = run.progress(1)
        best = progress and progress.best
        return bool(best and best.metrics.get("training_iteration", 0) >= 4)

    run.until(steps, "four steps are done")
    time.sleep(0.7)
    kill(*run.drivers())


def cut(seconds: float, fault: str = "cut") -> Callable[[Run], None]:
    def breaks(run: Run) -> None:
        run.await_deferred()
        run.await_marks(1)
        run.proxy.become(fault)
        time.sleep(seconds)
        run.proxy.become("")

    return breaks


def marked_failed(run: Run) -> None:
    run.await_deferred()
    run.await_marks(1)
    run.airflow.mark_task(run.fault.name, run.run_id, f"node.{run.execution}", "failed")
    run.await_stopped()


def run_marked_failed(run: Run) -> None:
    run.await_deferred()
    run.await_marks(1)
    run.airflow.mark(run.fault.name, run.run_id, "failed")
    run.await_stopped()


def cleared(run: Run) -> None:
    run.await_deferred()
    run.await_marks(3)
    run.note_finished()
    run.airflow.clear(run.fault.name, run.run_id, [f"node.{run.execution}"])


def cleared_after_success(run: Run) -> None:
    assert run.end() == "success"
    before = run.marks()
    run.airflow.clear(run.fault.name, run.run_id, [f"node.{run.execution}"])
    run.until(lambda: run.attempts() == 2, "a second attempt", 60)
    assert run.end() == "success"
    assert all(count == 2 * before[name] for name, count in run.marks().items()), run.marks()


def timed_out(run: Run) -> None:
    run.await_deferred()
    run.until(lambda: run.task(run.execution)["state"] == "failed", "the time is over", 90)
    run.await_stopped()


def dagrun_timed_out(run: Run) -> None:
    run.await_deferred()
    run.until(lambda: run.airflow.run_state(run.fault.name, run.run_id) == "failed", "the run's time is over", 90)
    run.await_stopped()


def stopped_in_between(run: Run) -> None:
    """The run is stopped while its job runs and no task watches it: tune waits for a slot of its pool."""
    run.until(run.jobs, "the job is submitted", 60)
    run.airflow.mark(run.fault.name, run.run_id, "failed")
    run.await_stopped(60)


def worker_terminated(run: Run) -> None:
    run.await_running()
    run.await_marks(1)
    identity = run.task(run.execution)["id"]
    supervisors = [each for each in run._task_processes(identity) if "LocalExecutor" in " ".join(each.cmdline())]
    children = [child for each in supervisors for child in each.children()]
    kill(*children, number=signal.SIGTERM)
    run.await_stopped()


def detached(run: Run) -> None:
    run.await_deferred()
    run.await_marks(1)
    run.airflow.clear(run.fault.name, run.run_id, [f"node.{run.execution}"])


def triggerer_killed(run: Run) -> None:
    run.await_deferred()
    run.await_marks(1)
    kill(*run.airflow.component("triggerer"))
    run.airflow.start_triggerer()


def triggerer_terminated(run: Run) -> None:
    run.await_deferred()
    run.await_marks(1)
    running = run.airflow.component("triggerer")
    run.airflow.start_triggerer()
    time.sleep(8)
    kill(*running[:1], number=signal.SIGTERM)
    run.until(lambda: not any(alive(each) for each in running), "the triggerer has ended", 60)


def head_killed(run: Run) -> None:
    run.await_deferred()
    run.await_marks(3)
    run.note_finished()
    run.world.kill_head()
    time.sleep(2)
    run.world.start_head()


def raylet_killed(run: Run) -> None:
    run.await_deferred()
    run.await_marks(3)
    run.note_finished()
    raylets = [
        each
        for each in psutil.process_iter(["cmdline"])
        if str(run.world._head_dir) in " ".join(each.info["cmdline"] or [])
        and (each.info["cmdline"] or [""])[0].endswith("raylet/raylet")
    ]
    assert raylets
    kill(*raylets)
    # Ray's own supervisor ends a head whose raylet is gone; whoever keeps the cluster starts it again.
    time.sleep(3)
    run.world.kill_head()
    run.world.start_head()


def submitted_twice(run: Run) -> None:
    """Two schedulers' worth: the same fan-out in two processes at once, against the same catalog and cluster."""
    run.until(run.jobs, "the job is submitted", 60)
    node, conn = run.node(), run.proxy.url
    from airflow_provider_raynode.launchers.jobs_api import entrypoint
    from airflow_provider_raynode.spec import JobRef, NodeSpec, digest

    data = node.read_bytes(f"{node.prefix_uri}/attempt_1/spec.json")
    spec = NodeSpec.from_bytes(data)
    job = JobRef(
        launcher="jobs_api", submission_id=spec.submission_id, attempt=1, address=conn,
        spec_uri=f"{spec.attempt_prefix}/spec.json", spec_sha256=digest(data), catalog_uri=spec.catalog_uri,
        node_prefix=spec.node_prefix,
    )  # fmt: skip
    from airflow_provider_raynode.hooks._http import RayHttp
    from airflow_provider_raynode.hooks._jobs import RayJobs, Submission
    from airflow_provider_raynode.hooks._settings import RaySettings

    settings = RaySettings(address=conn, source="test", token=run.world.token)
    results: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                RayJobs(RayHttp(settings)).ensure(Submission(job.submission_id, entrypoint(job)))
            )
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [False] * 6, results


def token_expired(run: Run) -> None:
    run.await_deferred()
    run.await_marks(1)
    run.proxy.real_token = run.world.token
    run.proxy.token = "renewed"
    run.proxy.break_connections()
    time.sleep(6)
    body = {"connection_id": "ray_token_expired", "conn_type": "ray", "host": run.proxy.url, "password": "renewed"}
    run.airflow.call("PATCH", "connections/ray_token_expired", body)


def result_truncated(run: Run) -> None:
    """What lies where the result will be is garbage, and the driver's own write is undone."""
    run.await_deferred()
    node = run.node()
    uri = f"{node.prefix_uri}/attempt_1/result.json"
    run.until(lambda: node.exists(uri), "the result is written")
    whole = node.read_bytes(uri)
    node.write_bytes(uri, whole[: len(whole) // 2])


def catalog_full(run: Run) -> None:
    run.await_deferred()
    run.await_marks(3)
    run.note_finished()
    filler = Path(run.fault.settings["catalog"]["uri"], "filler")
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    time.sleep(10)
    filler.unlink()


def catalog_read_only(run: Run) -> None:
    run.await_deferred()
    run.await_marks(3)
    run.note_finished()
    folder = run.fault.settings["catalog"]["uri"]

    # Lazily, as open files are on it: a bind mount of itself would not make them read-only.
    def remount(mode: str) -> bool:
        command = ["mount", "-o", f"remount,{mode}", folder]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    run.until(lambda: remount("ro"), "the filesystem is read-only", 20)
    time.sleep(8)
    run.until(lambda: remount("rw"), "it can be written again", 20)


def started_twice(run: Run) -> None:
    """Another run of the same DAG in the same second, on the same head."""
    other = type(run)(run.world, run.fault)
    assert other.end() == "success"
    problems = other.training_problems()
    assert not problems, problems


def catalog_slow(run: Run) -> None:
    run.world.s3_proxy.delay_s = 0.3
    run.world.s3_proxy.fault = "lag"


_S3 = {
    "AWS_ENDPOINT_URL": "{s3}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip
# Of a training, `trials` are its steps.
_TRAINING = {"function": "training", "trials": 12, "seconds": 1.0}
ALL = [
    Fault("task_killed", "kill -9 of the task's process", task_killed, settings={"node": _SYNC}, short=True),
    Fault("supervisor_killed", "kill -9 of task and supervisor", supervisor_killed, settings={"node": _SYNC}),
    Fault("fan_out_killed_in_submit", "fan-out killed as the job is submitted", fan_out_killed_in_submit),
    Fault("fan_out_killed_before", "fan-out killed before the submission arrives", fan_out_killed_before_submit),
    Fault("driver_killed", "kill -9 of the driver", driver_killed, attempts=(2,), short=True),
    Fault(
        "stepwise_driver_killed", "kill -9 of the driver, trials with checkpoints", stepwise_driver_killed,
        attempts=(2,), settings={"function": "stepwise", "trials": 2, "seconds": 6.0},
    ),
    Fault(
        "trial_worker_killed", "kill -9 of a trial's worker", nothing,
        settings={"ending": "killed", "failure": {"max_failures": 1}},
    ),
    Fault("cut_5s", "network cut for 5 s", cut(5), short=True),
    Fault("cut_90s", "network cut for 90 s", cut(90)),
    Fault("errors_500", "the Jobs API answers 500 for 10 s", cut(10, "500")),
    Fault("garbage", "the Jobs API answers HTML for 10 s", cut(10, "garbage")),
    Fault("submitted_twice", "six more submissions of the same job at once", submitted_twice),
    Fault("token_expired", "the token expires and is renewed in the connection", token_expired),
    Fault("marked_failed", "task marked failed", marked_failed, state="failed", settings={"trials": 60}, short=True),
    Fault("run_marked_failed", "DAG run marked failed", run_marked_failed, state="failed", settings={"trials": 60}),
    Fault("cleared", "task cleared while it waits", cleared, attempts=(2,), short=True),
    Fault("cleared_after_success", "task cleared after its success", cleared_after_success, attempts=(2,)),
    Fault(
        "timed_out", "execution_timeout", timed_out, state="failed",
        settings={"trials": 60, "retries": 0, "execution_timeout_s": 15}, short=True,
    ),
    Fault(
        "dagrun_timed_out", "dagrun_timeout", dagrun_timed_out, state="failed",
        settings={"trials": 60, "retries": 0, "dagrun_timeout_s": 25},
    ),
    Fault(
        "stopped_in_between", "run stopped between fan-out and tune", stopped_in_between, state="failed",
        settings={"trials": 90, "tune_pool": "closed", "node": {"attach_timeout_s": 12}},
    ),
    Fault(
        "worker_terminated", "SIGTERM to the task", worker_terminated, state="failed",
        settings={"trials": 60, "retries": 0, "node": _SYNC},
    ),
    Fault("detached", "cleared with on_kill='detach'", detached, settings={"node": {"on_kill": "detach"}}),
    Fault(
        "run_timeout", "run_timeout_s", nothing, state="failed",
        settings={"trials": 90, "retries": 0, "node": {"run_timeout_s": 12}},
    ),
    Fault(
        "startup_timeout", "no room for a trial within startup_timeout_s", nothing, state="failed",
        settings={"retries": 0, "num_cpus": 64, "node": {"startup_timeout_s": 12}},
    ),
    Fault("all_failed", "every trial fails", nothing, state="failed", settings={"ending": "error", "retries": 0}),
    Fault("only_nan", "every metric is NaN", nothing, state="failed", settings={"ending": "nan", "retries": 0}),
    Fault(
        "result_truncated", "result.json is cut in half", result_truncated, state="failed", settings={"retries": 0},
    ),
    Fault(
        "clock_skew", "the cluster's clock is two hours ahead", nothing,
        settings={"ray_cluster": {"runtime_env": {"env_vars": {"PYTHONPATH": "{skew}"}}}},
    ),
    Fault(
        "catalog_full", "the catalog's disk is full for 10 s", catalog_full, attempts=(1, 2, 3, 4),
        settings={"catalog": {"uri": "{mount}"}, "retries": 12},
    ),
    Fault(
        "catalog_read_only", "the catalog is read-only for 8 s", catalog_read_only, attempts=(1, 2, 3, 4),
        settings={"catalog": {"uri": "{mount}"}, "retries": 12},
    ),
    Fault(
        "catalog_slow", "the catalog answers each request 0.3 s late", catalog_slow,
        settings={
            "catalog": {"uri": "s3://raynode/slow"}, "trials": 6, "ray_cluster": {"runtime_env": {"env_vars": _S3}},
        },
    ),
    Fault(
        "training_worker_killed", "kill -9 of a training's worker", nothing,
        settings={**_TRAINING, "ending": "killed", "failure": {"max_failures": 1}},
    ),
    Fault(
        "training_driver_killed", "kill -9 of a training's driver", driver_killed, attempts=(2,), settings=_TRAINING,
        short=True,
    ),
    Fault(
        "training_marked_failed", "task of a training marked failed", marked_failed, state="failed",
        settings={**_TRAINING, "trials": 60},
    ),
    Fault("training_cleared", "training cleared while it waits", cleared, attempts=(2,), settings=_TRAINING),
    Fault(
        "training_timed_out", "execution_timeout of a training", timed_out, state="failed",
        settings={**_TRAINING, "trials": 90, "retries": 0, "execution_timeout_s": 25},
    ),
    Fault(
        "training_stops", "a training's stop rule", nothing,
        settings={**_TRAINING, "trials": 5, "steps": 90, "stop": {"training_iteration": 5}, "as": "stop_rule"},
    ),
    Fault(
        "training_rank_hangs", "a worker of a training hangs", nothing, state="failed",
        settings={**_TRAINING, "ending": "hangs", "retries": 0},
    ),
    Fault("training_twice", "two trainings in the same second", started_twice, settings={**_TRAINING, "runs": 2}),
    Fault("triggerer_killed", "kill -9 of the triggerer", triggerer_killed, alone=True, short=True,
          settings={"seconds": 5.0}),
    Fault("triggerer_terminated", "hand-over to another triggerer", triggerer_terminated, alone=True,
          settings={"seconds": 5.0}),
    Fault("raylet_killed", "kill -9 of the raylet, head started again", raylet_killed, attempts=(2,), alone=True),
    Fault("head_killed", "kill -9 of the whole head, started again", head_killed, attempts=(2,), alone=True),
    Fault(
        "training_head_killed", "kill -9 of the head under a training", head_killed, attempts=(2,), alone=True,
        settings={**_TRAINING, "trials": 20},
    ),
]  # fmt: skip
