"""A job's log as it grows, from an event loop: whole lines, each once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp

from airflow_provider_raynode.exceptions import ClusterError
from airflow_provider_raynode.triggers._client import AsyncRayClient

_RECONNECT_S, _MAX_RECONNECT_S = 1.0, 30.0
# Lines between two chances for others to run.
_BREATH = 100


class LogFollower:
    """Gives each line of a job's log to `emit`, from `offset` bytes on.

    Ray sends the log from its start at each connection: what was given before is skipped by its length. `offset` counts
    the bytes of the whole lines that were given, so that who goes on from it neither loses nor repeats one.
    """

    def __init__(self, client: AsyncRayClient, submission_id: str, offset: int, emit: Callable[[str], None]) -> None:
        self.offset = offset
        self._client = client
        self._submission_id = submission_id
        self._emit = emit
        self._task: asyncio.Task[None] | None = None
        self._fruitless = 0

    def start(self) -> None:
        """Begin to follow; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"log of {self._submission_id}")

    async def stop(self) -> None:
        """End; lines that have come but were not given stay after `offset`."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            before = self.offset
            # The log is a comfort: what goes wrong with it never ends the wait, and the last read is complete.
            with contextlib.suppress(ClusterError, aiohttp.ClientError, OSError, TimeoutError):
                await self._follow()
            self._fruitless = 0 if self.offset > before else self._fruitless + 1
            await asyncio.sleep(min(_RECONNECT_S * 2**self._fruitless, _MAX_RECONNECT_S))

    async def _follow(self) -> None:
        socket = await self._client.follow_log(self._submission_id)
        position, rest = 0, b""
        try:
            async for message in socket:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    return
                data = message.data.encode() if isinstance(message.data, str) else message.data
                position += len(data)
                # What was given before is skipped, be it in the middle of this message.
                seen = self.offset + len(rest) - (position - len(data))
                rest = await self._lines(rest + data[max(seen, 0) :])
        finally:
            await socket.close()

    async def _lines(self, data: bytes) -> bytes:
        """Give the whole lines of `data`; return what is left."""
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines):
            self._emit(line.decode("utf-8", "replace"))
            self.offset += len(line) + 1
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        return rest
