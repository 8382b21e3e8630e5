"""One call of a plain function on a worker: its reports, and what becomes of what it returns. Imports no Ray."""

from __future__ import annotations

import inspect
import json
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.catalog._json import is_exact
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError
from airflow_provider_raynode.runtime.outputs import LONGEST_NAME, as_scalar, sanitised, split
from airflow_provider_raynode.runtime.reporting import ReportingSession, over
from airflow_provider_raynode.runtime.steps import Steps

# Bytes of JSON that go by value, of what was returned and of the metrics: all of a node is under 4 KB in XCom.
LARGEST_VALUE = 1_000
LARGEST_METRICS = 1_000
# The name of a returned value among the outputs, and of the metrics where they are too many.
VALUE, METRICS = "value", "metrics"
_WRITE_S = 1.0

Returned = Literal["named", "value", "values"]


@dataclass
class Outcome:
    """What a call came to: fields of NodeResult, and the state of its steps."""

    value: Any = None
    metrics: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reports: int = 0
    steps: dict[str, Any] | None = None


@dataclass(kw_only=True)
class FunctionSession(ReportingSession):
    """A call of a plain function, which may report, and returns whatever it likes.

    :param attempt_catalog: the catalog at the attempt's folder.
    """

    attempt_catalog: Catalog
    returned: Returned = "named"
    steps: Steps
    _begun: float = field(default_factory=time.monotonic)
    _written: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def whose(self) -> str:
        """What a metric belongs to."""
        return "the function"

    def checkpoint(self) -> Any:
        """Return nothing: a plain function begins anew."""
        return None

    def report(self, values: Mapping[str, Any], checkpoint: Any = None) -> None:
        """Take a step: for the progress and the steps table."""
        if checkpoint is not None:
            raise RayNodeError(
                "report(..., checkpoint=...): a plain function does not go on from a checkpoint, its retry starts it "
                "anew. Leave the checkpoint out, return it as an output, or run the function as a training (ray_train)"
            )
        with self._lock:
            metrics, outputs = self.split(values, checkpoint=False)
            self.keep(metrics, outputs)
            self.reports += 1
            seconds = time.monotonic() - self._begun
            self.steps.add("function", {"training_iteration": self.reports, "time_total_s": seconds}, metrics)
            self._tell()

    def _tell(self) -> None:
        """Leave the last report where the driver shows it, once a second."""
        now = time.monotonic()
        if now - self._written < _WRITE_S:
            return
        self._written = now
        told = json.dumps({"reports": self.reports, "metrics": sanitised(self.last)})
        with suppress(CatalogError):
            self.attempt_catalog.write_bytes(
                reports_uri(self.attempt_catalog), told.encode("utf-8", "backslashreplace")
            )

    def finish(self, returned: Any) -> Outcome:
        """Take what the function returned."""
        outcome = Outcome()
        _refuse_promises(returned)
        if self.returned == "values":
            self._take_values(returned, outcome)
        elif self.returned == "named" and _has_names(returned):
            self._take_named(returned)
        elif self.returned == "value" or not self._declares_names(returned):
            self._take_value(returned, outcome)
        if self.returned == "named":
            self.check_declared()
        outcome.metrics, outcome.outputs = self._metrics(outcome), self.outputs
        outcome.reports = self.reports
        self.steps.close()
        outcome.steps = self.steps.get_state() if self.reports else None
        return outcome

    def so_far(self) -> Outcome:
        """Return what there is of a call that failed: its reports."""
        with suppress(CatalogError):
            self.steps.close()
        steps = self.steps.get_state() if self.reports else None
        return Outcome(
            metrics={name: sanitised(value) for name, value in self.last.items()}, reports=self.reports, steps=steps
        )

    def _declares_names(self, returned: Any) -> bool:
        """Check that what has no names is not declared by any; return whether all was reported along the way."""
        names = [each.name for each in self.returns if each.name != VALUE]
        if not names:
            return False
        if returned is None and all(name in self.outputs or name in self.last for name in names):
            return True
        raise RayNodeError(
            f"the function returned {_kind(returned)}, and the node declares {', '.join(map(repr, names))} in returns: "
            f"return a dict, {{{names[0]!r}: value, ...}}"
        )

    def _take_named(self, returned: Mapping[Any, Any]) -> None:
        """Take a dict: its metrics, its outputs; a reference in it stands for its own data."""
        references = {name: value for name, value in returned.items() if CatalogRef.is_ref(value)}
        rest = {name: value for name, value in returned.items() if name not in references}
        values = over(self.last, rest) if self.reports else rest
        metrics, outputs = split(values, self.returns)
        self.keep(metrics, outputs)
        self.outputs.update({name: dict(value) for name, value in references.items()})

    def _take_value(self, returned: Any, outcome: Outcome) -> None:
        """Take one value: small JSON as it is, else by reference."""
        kind = next((each.kind for each in self.returns if each.name == VALUE), "auto")
        fits, plain = _by_value(returned, LARGEST_VALUE)
        if kind == "metric":
            self.keep(*split({**self.last, VALUE: returned}, self.returns))
        elif kind == "auto" and CatalogRef.is_ref(returned):
            self.outputs[VALUE] = dict(returned)
        elif kind == "auto" and fits:
            outcome.value = plain
        else:
            self.outputs[VALUE] = dict(self.store.put(returned, VALUE, kind=None if kind == "auto" else kind))

    def _take_values(self, returned: Any, outcome: Outcome) -> None:
        """Take a dict as a value for each key: small JSON together as the value, the others by reference."""
        if CatalogRef.is_ref(returned):  # its annotation says dict, and it is one value
            self.outputs[VALUE] = dict(returned)
            return
        if not _has_names(returned):
            raise RayNodeError(
                f"the function returned {_kind(returned)}: with multiple outputs it must return a dict by names"
            )
        outcome.value, room = {}, LARGEST_VALUE
        for name, value in returned.items():
            fits, plain = _by_value(value, room)
            if CatalogRef.is_ref(value):
                self.outputs[name] = dict(value)
            elif fits:
                outcome.value[name] = plain
                room -= len(_json({name: plain}))
            else:
                self.outputs[name] = dict(self.store.put(value, name))

    def _metrics(self, outcome: Outcome) -> dict[str, Any]:
        """Return the metrics as JSON; where they are too many for XCom, all of them are an output too."""
        lost = [name for name, value in self.last.items() if isinstance(value, float) and not math.isfinite(value)]
        if lost:
            outcome.warnings.append(f"{', '.join(map(repr, lost[:5]))}: NaN or infinite, which is null in the result")
        metrics = {name: sanitised(value) for name, value in self.last.items()}
        size = len(_json(metrics))
        if size <= LARGEST_METRICS:
            return metrics
        if METRICS in self.outputs:
            raise RayNodeError(
                f"the metrics take {size} bytes, more than the {LARGEST_METRICS} that go through XCom, and would be an "
                f"output named {METRICS!r}, which the function gives itself: give that another name"
            )
        self.outputs[METRICS] = dict(self.store.put(metrics, METRICS, kind="json"))
        kept: dict[str, Any] = {}
        for name, value in metrics.items():
            if len(_json({**kept, name: value})) <= LARGEST_METRICS:
                kept[name] = value
        outcome.warnings.append(
            f"the metrics take {size} bytes, more than the {LARGEST_METRICS} that go through XCom: {len(kept)} of "
            f"{len(metrics)} are there by value, all of them in the output {METRICS!r}"
        )
        return kept


def _by_value(value: Any, room: int) -> tuple[bool, Any]:
    """Return whether a value goes as JSON, and the value as plain JSON: a number of NumPy's is a number."""
    plain = value
    scalar = as_scalar(value)
    if scalar is not None and not isinstance(value, str):
        plain = scalar
    return is_exact(plain) and len(_json(plain)) <= room and _is_clean(plain), plain


def _is_clean(value: Any) -> bool:
    """Whether every text in it is valid Unicode: a result could not hold another one as it is."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _has_names(returned: Any) -> bool:
    """Whether it is a dict by names, and no reference, which is a value."""
    return (
        isinstance(returned, Mapping)
        and not CatalogRef.is_ref(returned)
        and all(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in returned)
    )


def _kind(returned: Any) -> str:
    return "nothing" if returned is None else f"a {type(returned).__name__}"


def _refuse_promises(returned: Any) -> None:
    """Refuse what is no value yet.

    :raises RayNodeError: a coroutine, a generator, or what is to be awaited.
    """
    if inspect.iscoroutine(returned):
        returned.close()  # Python would warn that nobody awaited it
        raise RayNodeError(
            "the function returned a coroutine, since it is `async def`: make it a plain `def`, with asyncio.run(...) "
            "inside"
        )
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise RayNodeError("the function returned a generator, since it has `yield`: return list(...) of it")
    if inspect.isawaitable(returned):
        raise RayNodeError(
            f"the function returned a {type(returned).__name__}, which is to be awaited: wait for it inside the "
            "function"
        )


def reports_uri(attempt: Catalog) -> str:
    """Return where a running function leaves its last report, below the attempt's folder."""
    return f"{attempt.prefix_uri}/function/reports.json"


def failure_uri(attempt: Catalog) -> str:
    """Return where a failing function leaves its error, below the attempt's folder."""
    return f"{attempt.prefix_uri}/function/error.json"
