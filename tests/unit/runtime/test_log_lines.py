"""The lines of a trial on their way: the relay that tags them, Ray's log monitor that cuts them, the driver's log."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_raynode.runtime import noise, relay
from airflow_provider_raynode.runtime.driver_log import DriverFormatter
from airflow_provider_raynode.runtime.relay import Lines, tag_record
from airflow_provider_raynode.runtime.worker_log import WorkerLog

A, B = "ab12_00001", "ab12_00002"


class Monitor:
    """Ray's log monitor on one file: lines by what the file holds at the moment, cut where it ends."""

    def __init__(self, log: WorkerLog, pid: int = 1, *, is_err: bool = False) -> None:
        self.log, self.pid, self.is_err = log, pid, is_err

    def sees(self, data: bytes) -> None:
        lines = [each.decode("utf-8", "replace").rstrip("\r\n") for each in data.splitlines(keepends=True)]
        self.log.take({"ip": "a", "localhost": "a", "pid": self.pid, "is_err": self.is_err, "lines": lines})


def shown(*writes: bytes) -> list[str]:
    """What the driver shows of what a worker writes."""
    found: list[str] = []
    log, lines = WorkerLog(found.append), Lines()
    monitor = Monitor(log)
    for data in writes:
        monitor.sees(lines.feed(data))
    monitor.sees(lines.end())
    assert log.quiet
    return found


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ([b"one\ntwo\n"], [f"[{A}] one", f"[{A}] two"]),
        ([b"a\n\n  b\n"], [f"[{A}] a", f"[{A}] ", f"[{A}]   b"]),
        ([b"Epoch 1", b"...", b"done\n"], [f"[{A}] Epoch 1...done"]),
        ([b"no newline at the end"], [f"[{A}] no newline at the end"]),
        ([b"\r 10%", b"\r 50%", b"\r100%\n"], [f"[{A}] 100%"]),
        ([b"\r 10%", b"\r 50%"], [f"[{A}]  50%"]),
        ([b"a dos line\r\n"], [f"[{A}] a dos line"]),
        ([b"\x1b[31mred\x1b[0m\x1b]0;title\x07 \x1b[2K\n"], [f"[{A}] red "]),
        ([b"\xff\xfe \xc3", b"\xbc\n"], [f"[{A}] \ufffd\ufffd ü"]),
        ([b"\x02in\x03 \x04between\x05\n"], [f"[{A}] in between"]),
        (["page\x0cbreak\u2028\x85\n".encode()], [f"[{A}] page\x0cbreak\u2028\x85"]),
        ([b":actor_name:x\n:job_id:1\n"], [f"[{A}] :actor_name:x", f"[{A}] :job_id:1"]),
        ([], []),
    ],
)
def test_lines_are_whole_and_tagged(written: list[bytes], lines: list[str]) -> None:
    assert shown(tag_record(A), *written) == lines


def test_the_tag_is_that_of_the_trial_that_wrote_the_line() -> None:
    written = tag_record(A) + b"first\nunended" + tag_record("") + b"a thread of it\n" + tag_record(B) + b"second\n"
    expected = [f"[{A}] first", f"[{A}] unended", f"[{A}] a thread of it", f"[{B}] second"]
    assert shown(written) == expected
    assert shown(*(bytes([each]) for each in written)) == expected


def test_a_bar_is_shown_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(relay.time, "monotonic", lambda: float(next(now)))
    bars = [f"\r{each:3}%".encode() for each in range(10)]
    assert shown(tag_record(A), *bars, b"\r100%\n", b"next\n") == [
        *(f"[{A}]   {each}%" for each in (2, 4, 6, 8)),
        f"[{A}] 100%",
        f"[{A}] next",
    ]


def test_long_lines_go_in_pieces_and_come_whole() -> None:
    for text in ("x" * 1_000_000, "ü€𝄞" * 100_000, "x" * relay.PIECE, "ü" * relay.PIECE):
        data = Lines().feed(tag_record(A) + text.encode() + b"\n")
        assert max(map(len, data.split(b"\n"))) < relay.PIECE + 100
        assert shown(tag_record(A), text.encode(), b"\n") == [f"[{A}] {text}"]


def test_wherever_the_monitor_cuts_lines_come_whole_and_in_order() -> None:
    draw = random.Random(7)
    texts = [f"{number} {'x' * draw.choice([0, 1, 30, 70_000])}" for number in range(200)]
    lines = Lines()
    data = lines.feed(tag_record(A) + "".join(f"{text}\n" for text in texts).encode()) + lines.end()
    for _ in range(20):
        found: list[str] = []
        log = WorkerLog(found.append)
        monitor, other = Monitor(log), Monitor(log, pid=2)
        cuts = sorted(draw.randrange(len(data)) for _ in range(50))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            monitor.sees(data[begin:end])
            other.sees(b"\x02[other] between\x03\n")
        assert [line for line in found if line.startswith(f"[{A}]")] == [f"[{A}] {text}" for text in texts]
        assert found.count("[other] between") == 51


def test_what_is_said_of_a_trial_comes_after_its_last_line() -> None:
    found: list[str] = []
    log, lines = WorkerLog(found.append), Lines()
    monitor = Monitor(log)
    log.after(A, f"[{A}] failed: ValueError")
    monitor.sees(lines.feed(tag_record(A) + b"its last\n"))
    assert not log.quiet
    monitor.sees(lines.feed(tag_record("")))
    assert log.quiet
    log.after(A, "and what comes later, at once")
    assert found == [f"[{A}] its last", f"[{A}] failed: ValueError", "and what comes later, at once"]


def test_nothing_is_lost_where_an_end_never_comes() -> None:
    found: list[str] = []
    log = WorkerLog(found.append)
    log.after(A, "said of a trial whose machine is gone")
    Monitor(log).sees(b"\x02[ab12_00002] cut off in the mid")
    log.close()
    assert found == ["[ab12_00002] cut off in the mid", "said of a trial whose machine is gone"]


def test_processes_of_ray_are_named_and_their_noise_is_left_out() -> None:
    found: list[str] = []
    log = WorkerLog(found.append)
    Monitor(log, pid=7).sees(b"imported something\n")
    log.take({"ip": "10.0.0.2", "localhost": "a", "pid": 8, "is_err": True, "lines": ["elsewhere"]})
    log.take({"pid": "raylet", "lines": ["2 Workers killed due to memory pressure\nRefer to the docs"]})
    noisy = (
        "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot …",
        "Checkpoint successfully created at: Checkpoint(filesystem=py, path=/x)",
        "[2026-11-27 03:18:41,652 E 12725 12797] core_worker.cc:1 Failed to establish connection to the metrics agent",
        "[2026-11-27 03:18:41,652 E 12725 12797] logging.cc:474: *** SIGSEGV received at time=1",
    )
    log.take({"pid": "raylet", "lines": list(noisy)})
    assert found == [
        "Ray: worker 7: imported something",
        "Ray: worker 8 on 10.0.0.2: elsewhere",
        "Ray: 2 Workers killed due to memory pressure",
        "Ray: Refer to the docs",
    ]
    said = f"{noisy[1]}\n{noisy[0]}\n".encode()
    assert len(shown(tag_record(A), said)) == 2, "what a trial prints is its own, whatever it says"


def test_only_named_messages_of_a_logger_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    noise.quiet_ray()
    noise.quiet_ray()
    logger = logging.getLogger("ray.tune.tune")
    with caplog.at_level(logging.INFO, logger="ray.tune.tune"):
        logger.warning("You have passed a `SearchGenerator` instance as the `search_alg`, but …")
        logger.error("Trials did not complete: %s", ["a"])
        logger.error("Experiment state snapshotting failed: %s", "disk full")
    assert [record.msg for record in caplog.records] == ["Experiment state snapshotting failed: %s"]


def test_the_drivers_own_lines_say_who_speaks() -> None:
    def line(name: str, level: int, text: str) -> str:
        return DriverFormatter().format(logging.LogRecord(name, level, "file.py", 1, text, (), None))

    assert line("airflow_provider_raynode.driver", logging.ERROR, "raynode: FAILED") == "raynode: FAILED"
    assert line("ray.tune", logging.WARNING, "\x1b[33mslow\x1b[0m") == "Ray: WARNING: slow"
    assert line("hyperopt.tpe", logging.INFO, "sampled") == "hyperopt.tpe: sampled"


_WORKER = """
import os, subprocess, sys, threading
from airflow_provider_raynode.runtime.tagged import tagged
import multiprocessing
for trial in ("t1", "t2"):
    with tagged(trial):
        print("printed", trial); print(); print("begun", end=""); print("...", end="", flush=True); print("ended")
        sys.stderr.write("error\\n")
        subprocess.run([sys.executable, "-c", "print('child')"])
        os.system("echo shell >&2")
        os.write(1, b"raw\\n")
        sys.stdout.buffer.write(b"bytes\\n"); sys.stdout.flush()
        print("lone \\udcff surrogate")
        many = lambda number: [print("thread", number, "line", each) for each in range(50)]
        threads = [threading.Thread(target=many, args=(number,)) for number in (1, 2)]
        [each.start() for each in threads]; [each.join() for each in threads]
        multiprocessing.get_context("fork").Process(target=print, args=("forked",)).start()
        while multiprocessing.active_children(): pass
        try:
            os.wait()
        except ChildProcessError:
            print("no child is left")
        print("not ended", end="")
with tagged("t3"):
    print("before the end", flush=True)
    os._exit(9)
"""


def test_everything_that_a_worker_and_its_children_write(tmp_path: Path) -> None:
    output = tmp_path / "worker.out"
    script = tmp_path / "worker.py"
    script.write_text(_WORKER)
    with output.open("wb") as file:
        done = subprocess.run([sys.executable, str(script)], stdout=file, stderr=file, check=False, timeout=60)
    assert done.returncode == 9
    found: list[str] = []
    log = WorkerLog(found.append)
    for _ in range(3000):  # the relay ends after the worker
        if output.read_bytes().count(b"\x05") >= 3:
            break
        time.sleep(0.02)
    Monitor(log).sees(output.read_bytes())
    assert log.quiet
    for trial in ("t1", "t2"):
        own = [line.removeprefix(f"[{trial}] ") for line in found if line.startswith(f"[{trial}] ")]
        plain = [line for line in own if not line.startswith("thread")]
        assert plain == [
            f"printed {trial}", "", "begun...ended", "error", "child", "shell", "raw", "bytes",
            "lone \\udcff surrogate", "forked", "no child is left", "not ended",
        ]  # fmt: skip
        for number in (1, 2):
            lines = [line for line in own if line.startswith(f"thread {number}")]
            assert lines == [f"thread {number} line {each}" for each in range(50)]
    assert found[-1] == "[t3] before the end"
