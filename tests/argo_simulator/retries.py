"""Whether a node is tried again, as processNodeRetries decides it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from argo_simulator.conditions import seconds
from argo_simulator.documents import any_string
from argo_simulator.errors import TemplateError
from argo_simulator.expressions import evaluate_bool
from argo_simulator.nodes import Node
from argo_simulator.substitution import nested

_POLICIES = {
    "Always": {"Failed", "Error"},
    "OnFailure": {"Failed"},
    "OnError": {"Error"},
    # Which messages Kubernetes calls transient is not known here: none.
    "OnTransientError": set(),
}


@dataclass(frozen=True)
class Verdict:
    """:ivar again: whether there is another try; if not, `message` says why not."""

    again: bool
    message: str = ""


def duration_of(node: Node) -> float:
    return ((node.finished or datetime.now(UTC)) - node.started).total_seconds()


def last_retry(node: Node | None) -> dict[str, str]:
    """Return the `lastRetry` variables of a try's tags."""
    if node is None:
        values = {"exitCode": "0", "duration": "0", "status": "", "message": ""}
    else:
        code = "0" if node.exit_code is None else str(node.exit_code)
        values = {"exitCode": code, "duration": f"{duration_of(node):g}", "status": node.phase, "message": node.message}
    return {f"lastRetry.{key}": value for key, value in values.items()}


def backoff_s(strategy: dict[str, Any], tries: list[Node]) -> tuple[float, str]:
    """Return the wait before another try, and a message where none is worth waiting for.

    The wait comes before the policy and the expression are looked at, so a try that is not repeated waits as well.
    """
    backoff = strategy.get("backoff")
    if not backoff:
        return 0.0, ""
    if not backoff.get("duration"):
        raise TemplateError("no base duration specified for retryStrategy")
    wait = seconds(backoff["duration"])
    factor = _integer(backoff.get("factor"))
    if factor:
        wait *= float(factor) ** (len(tries) - 1)
    if backoff.get("cap"):
        wait = min(wait, seconds(backoff["cap"]))
    if backoff.get("maxDuration"):
        left = seconds(backoff["maxDuration"]) - (datetime.now(UTC) - tries[0].started).total_seconds()
        if left < 0:
            return 0.0, "Max duration limit exceeded"
        if wait > left:
            return 0.0, "Backoff would exceed max duration limit"
    limit = _integer(strategy.get("limit"))
    # Without a limit, or after the last try that it allows, the controller does not wait.
    return (wait, "") if limit is not None and len(tries) <= limit else (0.0, "")


def decide(strategy: dict[str, Any], tries: list[Node]) -> Verdict:
    """Decide after a failed try.

    :raises TemplateError: the strategy is wrong: the node ends in Error.
    """
    last = tries[-1]
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    if policy not in _POLICIES:
        raise TemplateError(f"{policy} is not a valid RetryPolicy")
    if last.phase not in _POLICIES[policy]:
        return Verdict(False, last.message)
    limit = _integer(strategy.get("limit"))
    if limit is not None and len(tries) > limit:
        return Verdict(False, "No more retries left")
    if strategy.get("expression") and not evaluate_bool(strategy["expression"], _scope(tries)):
        return Verdict(False, "retryStrategy.expression evaluated to false")
    return Verdict(True)


def _scope(tries: list[Node]) -> dict[str, Any]:
    code = tries[-1].exit_code
    values = {**last_retry(tries[-1]), "lastRetry.exitCode": "-1" if code is None else str(code)}
    return nested({**values, "retries": str(len(tries) - 1)})


def _integer(value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(any_string(value))
    except ValueError as error:
        raise TemplateError(f"{value!r} of the retryStrategy is no integer") from error
