"""How errors, exits and ends of processes are told, whatever they are; without Ray running."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.runtime.failures import (
    TrialError,
    describe,
    error_of_search,
    exits_told,
    to_raise,
    told_by_ray,
)
from airflow_provider_raynode.spec import LONGEST_MESSAGE, LONGEST_TRACEBACK, NodeFailure


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NotText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Two(Exception):
    """The classic that pickles and does not come back."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Odd(BaseException):
    pass


def _locked() -> Exception:
    error = ValueError("locked")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    return error


def _huge_attribute() -> Exception:
    error = ValueError("with its batch")
    error.batch = b"x" * 3_000_000  # type: ignore[attr-defined]
    return error


def _circle() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def _long_chain() -> Exception:
    last = ValueError("first")
    for number in range(3000):
        following = ValueError(str(number))
        following.__cause__ = last
        last = following
    return last


ERRORS: list[tuple[Callable[[], BaseException], str, bool]] = [
    (lambda: ValueError("plain"), "plain", True),
    (lambda: FileNotFoundError("no input file data\udce9"), "no input file data\\udce9", False),
    (lambda: ValueError("größe"), "größe", True),
    (lambda: ValueError(), "ValueError()", True),
    (Silent, "its text cannot be had: RuntimeError", False),
    (NotText, "its text cannot be had: TypeError", False),
    (lambda: Two("a", "b"), "a and b", False),
    (_locked, "locked", False),
    (_huge_attribute, "with its batch", False),
    (lambda: ValueError("x" * 10_000_000), "characters and more left out", False),
    (_circle, "one", True),
    (_long_chain, "2999", False),
    (lambda: ExceptionGroup("several", [ValueError(1), KeyError("k")]), "several (2 sub-exceptions)", True),
    (lambda: ExceptionGroup("several", [ValueError("k\udce9")]), "several (1 sub-exception)", False),
    (lambda: SystemExit(3), "SystemExit(3) at test_failures.py:", False),
    (lambda: SystemExit(0), "SystemExit(0) at test_failures.py:", False),
    (lambda: SystemExit("no data"), "SystemExit('no data') at test_failures.py:", False),
    (KeyboardInterrupt, "KeyboardInterrupt at test_failures.py:", False),
    (lambda: Odd("odd"), "Odd(odd) at test_failures.py:", False),
]


def caught(make: Callable[[], BaseException]) -> BaseException:
    try:
        raise make()
    except BaseException as error:
        return error


@pytest.mark.parametrize(("make", "message", "passes"), ERRORS, ids=range(len(ERRORS)))
def test_every_error_is_told_and_something_passes_through_ray(
    make: Callable[[], BaseException], message: str, passes: bool
) -> None:
    error = caught(make)
    failure = describe(error, "t")
    assert failure.type == type(error).__name__
    assert message in failure.message
    assert len(failure.message) < LONGEST_MESSAGE + 1
    assert len(failure.traceback) < LONGEST_TRACEBACK + 1
    assert NodeFailure.from_bytes(failure.to_bytes()) == failure
    raised = to_raise(error, failure)
    if passes:
        assert raised is error
    else:
        assert isinstance(raised, TrialError)
        assert len(str(raised)) < 21_000
        str(raised).encode()


def test_a_traceback_has_the_functions_frames_and_its_causes() -> None:
    def read() -> None:
        raise OSError("no file")

    try:
        try:
            read()
        except OSError as error:
            raise ValueError("no data") from error
    except ValueError as error:
        told = describe(error, "t").traceback
    assert told.index("OSError: no file") < told.index("The above exception was the direct cause")
    assert "in read" in told
    assert told.endswith("ValueError: no data\n")


def test_an_error_of_our_own_has_no_empty_traceback() -> None:
    from airflow_provider_raynode.exceptions import RayNodeError
    from airflow_provider_raynode.runtime.returned import as_mapping

    try:
        as_mapping([1], "score")
    except RayNodeError as error:
        assert error.__traceback__ is not None
        assert "returned.py" not in describe(error, "t").traceback
        assert describe(error.with_traceback(error.__traceback__.tb_next), "t").traceback == ""


def test_os_exit_leaves_word_of_itself(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from airflow_provider_raynode.runtime.failures import exits_told
def train():
    if os.fork() == 0:
        os._exit(9)  # a child of the function's own
    os.wait()
    os._exit(5)
with exits_told(lambda failure: Path({str(tmp_path / "word")!r}).open("ab").write(failure.to_bytes()), "t"):
    train()
"""
    file = tmp_path / "train.py"
    file.write_text(code)
    done = subprocess.run([sys.executable, str(file)], timeout=60, check=False)
    assert done.returncode == 5
    failure = NodeFailure.from_bytes((tmp_path / "word").read_bytes())
    assert failure.type == "ProcessExit"
    assert "os._exit(5) at train.py:9, in train" in failure.message
    assert "in train" in failure.traceback
    assert "threading" not in failure.traceback


def test_os_exit_is_itself_again_afterwards() -> None:
    before = os._exit
    with exits_told(lambda failure: None, "t"):
        assert os._exit is not before
    assert os._exit is before


DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: A\nThe actor is dead because its worker process has died. Worker exit type: {} Worker exit detail: {}"  # noqa: E501
GONE = "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, (3) SIGSEGV"  # noqa: E501


@pytest.mark.parametrize(
    ("text", "reports", "kind", "message"),
    [
        (None, 0, "TrialError", "Ray gave no reason"),
        (" \n", 0, "TrialError", "Ray gave no reason"),
        (DIED.format("SYSTEM_ERROR", GONE), 3, "WorkerDied", "ended after report 3: it crashed in native code"),
        (DIED.format("SYSTEM_ERROR", GONE), 0, "WorkerDied", "ended before its first report"),
        (
            DIED.format("SYSTEM_ERROR", "Worker exits unexpectedly. Worker exits with an exit code 3."),
            1,
            "WorkerDied",
            "it ended with exit code 3",
        ),
        (
            DIED.format("SYSTEM_ERROR", "Worker exits with an exit code 1. The process receives a SIGTERM."),
            1,
            "WorkerDied",
            "ended from outside (SIGTERM)",
        ),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", 2, "OutOfMemory",
         "the machine ran low on memory"),
        ("Failure # 1 (occurred at 2026-01-01_00-00-00)\nKeyError: 1\nFailure # 2 (occurred at 2026-01-01_00-00-01)\n"
         "Traceback (most recent call last):\n  File\nray.exceptions.RayTaskError(ValueError): ValueError: bad\n",
         1, "ValueError", "ValueError: bad"),
        ("something else", 0, "TrialError", "something else"),
    ],
)  # fmt: skip
def test_what_only_ray_can_tell(text: Any, reports: int, kind: str, message: str) -> None:
    failure = told_by_ray(text, "t", reports)
    assert failure.type == kind
    assert message in failure.message


def test_an_error_inside_tune_is_told_by_its_own_words() -> None:
    import traceback

    from ray.tune import TuneError

    try:
        try:
            raise KeyError("budget")
        except KeyError:
            raise TuneError(traceback.format_exc()) from None
    except TuneError as error:
        failure = error_of_search(error)
    assert (failure.type, failure.message[:8]) == ("KeyError", "'budget'")
    assert "in Ray Tune itself" in failure.message
    assert failure.trial_id is None


def test_an_error_of_the_driver() -> None:
    failure = error_of_search(ConfigError("f.yaml: wrong\udce9"))
    assert (failure.type, failure.message, failure.traceback) == ("ConfigError", "f.yaml: wrong\\udce9", "")
    assert "SystemExit(0)" in error_of_search(caught(lambda: SystemExit(0))).message
