"""HTTP to a Ray dashboard from an event loop: nothing here blocks it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Self

import aiohttp

from airflow_provider_raynode import __version__
from airflow_provider_raynode.exceptions import ClusterError, RayNodeError
from airflow_provider_raynode.hooks._connection import DEFAULT_CONN_ID, amask, aread_connection
from airflow_provider_raynode.hooks._http import ClusterRefusedError, ClusterUnreachableError, not_ray, refusal
from airflow_provider_raynode.hooks._jobs import checked_id
from airflow_provider_raynode.hooks._settings import RaySettings, settings_of
from airflow_provider_raynode.launchers._base import JobState, JobStatus

_TIMEOUT = aiohttp.ClientTimeout(total=30.0, sock_connect=5.0)
# An answer larger than this is not one of Ray's.
_MAX_ANSWER = 256 * 1024 * 1024
# How often, in seconds, the connection is read anew when the cluster does not accept the token.
_REFRESH_S = 5.0
_STOP_POLL_S = 0.3
_STOP_AGAIN_S = 5.0


class AsyncRayClient:
    """The part of the Jobs API that waiting needs: look, list, stop, follow the log.

    The connection is read when it is first needed, and anew when the cluster refuses its token: tokens are renewed.

    :param ray_conn_id: id of the Airflow connection, None for the defaults of a cluster without one.
    :param address: base URL of the Jobs API.
    """

    def __init__(self, ray_conn_id: str | None, address: str) -> None:
        self.ray_conn_id = ray_conn_id
        self.address = address
        self._settings: RaySettings | None = None
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._read_at = float("-inf")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get_job(self, submission_id: str) -> JobStatus | None:
        """Return the status of a job, None where the cluster does not know it.

        :raises ClusterUnreachableError: no answer came.
        :raises ClusterError: the answer is an error, or not Ray's.
        """
        try:
            details = await self._json("GET", f"/api/jobs/{checked_id(submission_id)}")
        except ClusterRefusedError as error:
            if error.status == 404 and "does not exist" in error.text:
                return None
            raise
        return self._status(details)

    async def list_jobs(self) -> dict[str, JobStatus]:
        """Return the status of every job of the cluster by submission id; those of no submission are left out."""
        listed = await self._json("GET", "/api/jobs/")
        if not isinstance(listed, list):
            raise ClusterError(not_ray(await self.settings(), "/api/jobs/ answered no list"))
        return {
            str(details["submission_id"]): self._status(details)
            for details in listed
            if isinstance(details, dict) and details.get("submission_id")
        }

    async def stop_job(self, submission_id: str, timeout_s: float) -> JobStatus | None:
        """Stop a job and wait until it has stopped, at most `timeout_s`; return its last status, None if unknown."""
        path = f"/api/jobs/{checked_id(submission_id)}/stop"
        deadline = time.monotonic() + timeout_s
        asked = float("-inf")
        while True:
            status = await self.get_job(submission_id)
            now = time.monotonic()
            if status is None or status.state.ended or now >= deadline:
                return status
            if now - asked >= _STOP_AGAIN_S:
                asked = now
                try:
                    await self._json("POST", path)
                except ClusterRefusedError as error:
                    if error.status != 404:
                        raise
            await asyncio.sleep(_STOP_POLL_S)

    async def follow_log(self, submission_id: str) -> aiohttp.ClientWebSocketResponse:
        """Return the WebSocket that sends a job's log from its start."""
        session = await self._open()
        settings = await self.settings()
        url = f"{settings.address}/api/jobs/{checked_id(submission_id)}/logs/tail"
        try:
            # Ray's dashboard neither answers a ping nor understands compression on this route (seen with Ray 2.60).
            return await session.ws_connect(url, compress=0, max_msg_size=0, autoping=True, heartbeat=None)
        except aiohttp.WSServerHandshakeError as error:
            raise refusal(settings, "/logs/tail", error.status, error.message) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def settings(self) -> RaySettings:
        """Return the settings of the cluster, read from the connection at the first call."""
        if self._settings is None:
            await self._read_settings()
        assert self._settings is not None
        return self._settings

    async def _read_settings(self) -> None:
        self._read_at = time.monotonic()
        conn_id = self.ray_conn_id or DEFAULT_CONN_ID
        connection = await aread_connection(conn_id)
        # In a thread: it may read a token file.
        settings = await asyncio.to_thread(settings_of, connection, conn_id, self.address)
        await amask(settings)
        self._settings = settings

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                settings = await self.settings()
                headers = {"User-Agent": f"airflow-provider-raynode/{__version__}", **settings.headers}
                if settings.token is not None:
                    headers["Authorization"] = f"Bearer {settings.token}"
                context = await asyncio.to_thread(settings.tls_context) or True
                connector = aiohttp.TCPConnector(ssl=context, limit=0)
                self._session = aiohttp.ClientSession(
                    headers=headers, connector=connector, timeout=_TIMEOUT, trust_env=True
                )
            return self._session

    async def _json(self, method: str, path: str) -> Any:
        try:
            return await self._answer(method, path)
        except ClusterRefusedError as error:
            if error.status not in (401, 403) or time.monotonic() - self._read_at < _REFRESH_S:
                raise
            # The token may have been renewed since the connection was read.
            try:
                await self._read_settings()
            except RayNodeError as unread:
                raise error from unread
        await self.close()
        return await self._answer(method, path)

    async def _answer(self, method: str, path: str) -> Any:
        session = await self._open()
        settings = await self.settings()
        try:
            async with session.request(method, f"{settings.address}{path}", allow_redirects=False) as response:
                data = await response.content.read(_MAX_ANSWER)
                while not response.content.at_eof():
                    data += await response.content.read(_MAX_ANSWER)
                    if len(data) > _MAX_ANSWER:
                        raise ClusterError(not_ray(settings, f"{path} answered more than {_MAX_ANSWER} bytes"))
                status, location = response.status, response.headers.get("Location", "nowhere")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if status >= 300:
            raise refusal(settings, path, status, data.decode("utf-8", "replace"), location)
        try:
            # A list of many jobs takes its time to read.
            return json.loads(data) if len(data) < 64 * 1024 else await asyncio.to_thread(json.loads, data)
        except ValueError:
            raise ClusterError(not_ray(settings, f"{path} did not answer JSON")) from None

    def _unreachable(self, error: BaseException) -> ClusterUnreachableError:
        reason = str(error) or type(error).__name__
        return ClusterUnreachableError(f"{self.address} does not answer: {reason}")

    def _status(self, details: Any) -> JobStatus:
        if not isinstance(details, dict) or not JobState.is_one(details.get("status")):
            raise ClusterError(f"{self.address} describes a job in an unknown way: {details!r:.200}")
        return JobStatus(JobState(details["status"]), str(details.get("message") or ""))
