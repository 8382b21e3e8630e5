"""A trigger run inline, in the pod of its task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.argo.task_sdk._signals import TerminatedError

if TYPE_CHECKING:
    from airflow_provider_raynode.argo.task_sdk._signals import Termination

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumption:
    """How a task goes on after it deferred.

    :param method: the operator's method to call; the SDK's `__fail__` stands for a failure.
    :param arguments: its arguments, serialised as the SDK wants them.
    :param event: the trigger's event, None where it gave none.
    """

    method: str
    arguments: dict[str, Any]
    event: Any = None


class _DeferralTimeoutError(Exception):
    """The time that the task gave its trigger is over."""


def run_trigger(message: Any, instance: Any, termination: Termination) -> Resumption:
    """Run the trigger of a DeferTask to its first event; whatever goes wrong is a resumption that fails.

    :param instance: the task instance that deferred.
    """
    from airflow.sdk._shared.module_loading import import_string
    from airflow.sdk.bases.operator import TriggerFailureReason
    from airflow.sdk.serde import deserialize, serialize

    failure = TriggerFailureReason.TRIGGER_FAILURE
    try:
        trigger: Any = import_string(message.classpath)(**_arguments(deserialize(message.trigger_kwargs or {})))
        _tell(trigger, instance)
        event = asyncio.run(_first_event(trigger, message.trigger_timeout, termination))
    except _DeferralTimeoutError:
        return _failed(TriggerFailureReason.TRIGGER_TIMEOUT)
    except TerminatedError as error:
        return _failed(failure, [str(error)])
    except Exception as error:
        return _failed(failure, traceback.format_exception(error))
    if event is None:
        return _failed(failure, ["the trigger ended without an event"])
    arguments = {**(message.next_kwargs or {}), "event": serialize(event.payload)}
    return Resumption(str(message.next_method), arguments, event)


def _failed(reason: Any, lines: list[str] | None = None) -> Resumption:
    from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR

    return Resumption(TRIGGER_FAIL_REPR, {"error": reason.value, **({"traceback": lines} if lines else {})})


def _tell(trigger: Any, instance: Any) -> None:
    """Tell a trigger what it runs for, and fill in its templates where its operator starts from it."""
    trigger.task_instance = instance
    if trigger.template_fields:
        trigger.render_template_fields(instance.get_template_context())


def _arguments(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


async def _first_event(trigger: Any, timeout: timedelta | None, termination: Termination) -> Any:
    events = trigger.run()
    limit = asyncio.timeout(None if timeout is None else timeout.total_seconds())
    with _stoppable(termination):
        try:
            async with limit:
                return await anext(events, None)
        except TimeoutError as error:
            if limit.expired():
                raise _DeferralTimeoutError from error
            raise
        except asyncio.CancelledError:
            if not termination.asked:
                raise
            await _quietly(trigger.on_kill())
            raise TerminatedError("stopped by SIGTERM while it was deferred") from None
        finally:
            await _quietly(events.aclose())
            await _quietly(trigger.cleanup())


@contextlib.contextmanager
def _stoppable(termination: Termination) -> Iterator[None]:
    """Cancel the running coroutine on SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        termination.note()
        task.cancel()

    before = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def _quietly(awaitable: Any) -> None:
    try:
        await awaitable
    except Exception:
        log.exception("The trigger's cleaning up failed")
