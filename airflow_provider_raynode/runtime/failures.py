"""How a trial failed: the function's own error, its exit, or the end of its process, as a NodeFailure."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.spec import NodeFailure
from airflow_provider_raynode.texts import clean, cut

_OWN = Path(__file__).parent.parent
_LIBRARIES = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"])
# Ray keeps an error several times over, and prints it: what is longer, or carries more, is told by another.
_LONGEST_TEXT = 20_000
_LARGEST_PICKLE = 1_000_000

Mask = Callable[[str], str]


class TrialError(RayNodeError):
    """Stands for an error that Ray could not pass on as it is: too long, not to be pickled, or an exit."""


def describe(
    error: BaseException,
    trial_id: str | None = None,
    mask: Mask = str,
    *,
    rank: int | None = None,
    item: int | None = None,
) -> NodeFailure:
    """Return what `error` says, with the function's own frames; never raises, whatever the error is.

    :param trial_id: whose error it is; so are `rank` and `item`.
    :param mask: what hides secrets in a text.
    """
    name = clean(type(error).__name__)
    failed: dict[str, Any] = {"trial_id": trial_id, "rank": rank, "item": item}
    try:
        return NodeFailure(type=name, message=mask(_message(error)), traceback=mask(_traceback_of(error)), **failed)
    except Exception as second:
        return NodeFailure(type=name, message=f"(the error cannot be shown: {type(second).__name__})", **failed)


def _message(error: BaseException) -> str:
    text = _text_of(error)
    if isinstance(error, SystemExit):
        return (
            f"SystemExit({error.code!r:.200}){_at(_last_frame(error))}: the function ended its process in place of "
            "returning; return the result, or raise an error"
        )
    if isinstance(error, KeyboardInterrupt):
        return f"KeyboardInterrupt{f'({text})' if text else ''}{_at(_last_frame(error))}"
    if isinstance(error, Exception):
        return text
    return f"{type(error).__name__}({text}){_at(_last_frame(error))}"


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:
        return f"(its text cannot be had: {type(second).__name__} in its __str__)"
    return text or ("" if isinstance(error, RayNodeError | KeyboardInterrupt) else repr(error)[:200])


def _traceback_of(error: BaseException) -> str:
    """Return the traceback without this package's frames and Ray's; empty where none of the function's is left."""
    told = traceback.TracebackException.from_exception(error)
    frames = _keep_the_functions(told)
    if not frames and told.__cause__ is None and told.__context__ is None:
        return ""
    return "".join(told.format())


def _keep_the_functions(told: traceback.TracebackException) -> int:
    """Take our own frames out of an error and of all that it comes from or groups; return how many are left in it."""
    seen: set[int] = set()
    open_ends = [told]
    while open_ends:
        each = open_ends.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if each.stack is not None:
            each.stack[:] = [frame for frame in each.stack if not Path(frame.filename).is_relative_to(_OWN)]
        open_ends += [other for other in (each.__cause__, each.__context__) if other is not None]
        open_ends += getattr(each, "exceptions", None) or []
    return len(told.stack or ())


def _last_frame(error: BaseException) -> traceback.FrameSummary | None:
    return _functions_frame(traceback.extract_tb(error.__traceback__))


def _functions_frame(frames: list[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    """Return the innermost frame of the author's own code, or of any code but ours."""
    foreign = [frame for frame in frames if not Path(frame.filename).is_relative_to(_OWN)]
    authors = [frame for frame in foreign if not frame.filename.startswith(_LIBRARIES)]
    return next(reversed(authors or foreign), None)


def _at(frame: traceback.FrameSummary | None) -> str:
    return "" if frame is None else f" at {Path(frame.filename).name}:{frame.lineno}, in {frame.name}"


def to_raise(error: BaseException, failure: NodeFailure) -> BaseException:
    """Return what may leave the worker: `error`, or one that stands for it where Ray could not pass it on."""
    if isinstance(error, Exception) and _passes(error):
        return error
    return TrialError(cut(clean(f"{failure.type}: {failure.message}"), _LONGEST_TEXT))


def _passes(error: Exception) -> bool:
    from ray import cloudpickle

    try:
        shown = "".join(traceback.format_exception(error))
        if len(shown) > _LONGEST_TEXT or clean(shown) != shown:
            return False
        str(error)
        data = cloudpickle.dumps(error)
        return len(data) <= _LARGEST_PICKLE and type(cloudpickle.loads(data)) is type(error)
    except Exception:
        return False


@contextmanager
def exits_told(
    record: Callable[[NodeFailure], None],
    trial_id: str | None = None,
    *,
    rank: int | None = None,
    item: int | None = None,
) -> Iterator[None]:
    """Have `os._exit` in this process leave word of itself first: nothing else could tell who called it, and where."""
    real, pid = os._exit, os.getpid()

    def told(status: int) -> None:
        # A process that the function forked ends with os._exit as a matter of course.
        if os.getpid() == pid:
            frame = _functions_frame(list(traceback.extract_stack(sys._getframe(1))))
            message = f"os._exit({status!r:.20}){_at(frame)}: the function ended its process, without a result"
            failed: dict[str, Any] = {"trial_id": trial_id, "rank": rank, "item": item}
            record(NodeFailure(type="ProcessExit", message=message, traceback=_stack(sys._getframe(1)), **failed))
        real(status)

    os._exit = told  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = real


def _stack(frame: FrameType) -> str:
    kept = [
        each
        for each in traceback.extract_stack(frame)
        if not Path(each.filename).is_relative_to(_OWN) and not each.filename.startswith(threading.__file__)
    ]
    own = [each for each in kept if not each.filename.startswith(_LIBRARIES)] or kept
    return "".join(["Traceback (most recent call last):\n", *traceback.format_list(own)])


# -- what only Ray can tell ----------------------------------------------------------------------------------------

_ENDS = (
    # Ray's words, and ours
    (r"OutOfMemory|running low on memory|memory monitor", "OutOfMemory", "Ray ended it: the machine ran low on memory"),
    (r"SIGTERM", "WorkerDied", "it was ended from outside (SIGTERM)"),
    (r"exit code (\d+)", "WorkerDied", "it ended with exit code {0}"),
    (
        r"connection error code|End of file",
        "WorkerDied",
        "it crashed in native code (a segmentation fault, say) or was killed (SIGKILL; Linux does so where memory runs "
        "out). The log has more where the crash left a word",
    ),
    (r"node .*(died|dead|terminated|preempted)|NODE_DIED", "WorkerDied", "the machine that it ran on is gone"),
)


def told_by_ray(
    text: str | None, trial_id: str | None, reports: int | None, *, what: str = "the trial's process"
) -> NodeFailure:
    """Return a failure that the worker left no word of, by what Ray says.

    :param text: Ray's own text, None where it has none.
    :param reports: how many reports of the trial there are; None where it has none to make.
    :param what: what has ended, in words.
    """
    if not text or not text.strip():
        return NodeFailure(type="TrialError", message="Ray gave no reason", trial_id=trial_id)
    # Ray adds one failure after the other.
    last = re.split(r"^Failure # \d+ \(occurred at [^)]*\)\n", text, flags=re.MULTILINE)[-1].strip()
    if re.search(r"ActorDied|actor (is dead|died)|WorkerCrashed|OutOfMemoryError|worker died", last):
        end = end_of_process(last)
        if end is not None:
            after = f" after report {reports}" if reports else "" if reports is None else " before its first report"
            message = f"{what} ended{after}: {end[1]}"
            return NodeFailure(type=end[0], message=message, traceback=last, trial_id=trial_id)
    line = next((line for line in reversed(last.splitlines()) if line.strip()), last).strip()
    name, _, message = line.partition(": ")
    if message and re.fullmatch(r"[\w.]+(\([\w.]+\))?", name):
        return NodeFailure(type=_plain(name), message=message, traceback=last, trial_id=trial_id)
    return NodeFailure(type="TrialError", message=line, traceback=last, trial_id=trial_id)


def end_of_process(text: str) -> tuple[str, str] | None:
    """Return how a worker's process ended, as a type of failure and in words, by what Ray says; None: it does not say.

    :param text: Ray's own text on the death of an actor or a task.
    """
    for pattern, kind, words in _ENDS:
        if (match := re.search(pattern, text)) is not None:
            return kind, words.format(*match.groups()) if match.groups() else words
    return None


def _plain(name: str) -> str:
    inner = re.search(r"\(([\w.]+)\)$", name)
    return (inner.group(1) if inner else name).rpartition(".")[2]


def error_of_search(error: BaseException) -> NodeFailure:
    """Return the failure of a job: ours by its message, another's with its traceback.

    What a search algorithm, a scheduler or a callback raises, Tune hands on as the text of a traceback.
    """
    if isinstance(error, RayNodeError):
        return NodeFailure(type=type(error).__name__, message=_text_of(error) or repr(error))
    told = "".join(traceback.TracebackException.from_exception(error).format())
    text = _message(error)
    if type(error).__name__ == "TuneError" and "Traceback" in text:
        inner = told_by_ray(text, "", 0)
        return NodeFailure(
            type=inner.type, message=f"{inner.message} (in Ray Tune itself: see the traceback)", traceback=told
        )
    return NodeFailure(type=type(error).__name__, message=text, traceback=told)
