"""A trigger run inline, in the pod of its task."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_raynode.argo.task_sdk._signals import Termination

# How the SDK is told that a task resumes only to fail.
FAIL_METHOD = "__fail__"
_TIMEOUT, _FAILURE = "Trigger timeout", "Trigger failure"


def run_trigger(message: Any, termination: Termination) -> tuple[str, dict[str, Any], Any]:
    """Run the trigger of a DeferTask to its first event.

    :return: the method to resume with, its arguments (serialised as the SDK wants them), and the event.
    """
    from airflow.sdk._shared.module_loading import import_string
    from airflow.sdk.serde import deserialize, serialize

    try:
        trigger = import_string(message.classpath)(**_arguments(deserialize(message.trigger_kwargs or {})))
        event = asyncio.run(_first_event(trigger, message.trigger_timeout, termination))
    except TimeoutError:
        return FAIL_METHOD, {"error": _reason(_TIMEOUT)}, None
    except Exception as error:
        return FAIL_METHOD, {"error": _reason(_FAILURE), "traceback": traceback.format_exception(error)}, None
    if event is None:
        text = "the trigger ended without an event"
        return FAIL_METHOD, {"error": _reason(_FAILURE), "traceback": [text]}, None
    arguments = {**(message.next_kwargs or {}), "event": serialize(event.payload)}
    return str(message.next_method), arguments, event


def _arguments(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _reason(text: str) -> Any:
    from airflow.sdk.bases.operator import TriggerFailureReason

    return next((each.value for each in TriggerFailureReason if each.value.lower() == text.lower()), text)


async def _first_event(trigger: Any, timeout: timedelta | None, termination: Termination) -> Any:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():

        def stop() -> None:
            termination.note()
            task.cancel()

        loop.add_signal_handler(signal.SIGTERM, stop)
    events = trigger.run()
    try:
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            return await anext(events, None)
    except asyncio.CancelledError:
        if termination.asked:
            await trigger.on_kill()
            raise SystemExit from None
        raise
    finally:
        with contextlib.suppress(Exception):
            await events.aclose()
        await trigger.cleanup()
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.remove_signal_handler(signal.SIGTERM)
