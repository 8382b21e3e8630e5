"""RayJobTrigger in an event loop, against a real HTTP server that speaks the Jobs API, and against the Ray head."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.spec import JobRef
from airflow_provider_raynode.triggers import RayJobTrigger

pytestmark = pytest.mark.airflow


class Server:
    """Jobs whose state, log and faults the test sets."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.token = "good"
        self.status = 200
        self.body: str | None = None
        self.requests: list[str] = []
        self.drop_log_after = 0
        self.url = ""

    def add(self, name: str, status: str = "RUNNING") -> None:
        self.jobs[name] = {"submission_id": name, "status": status, "message": "", "entrypoint": "python"}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        app = web.Application(middlewares=[self._faults])
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_get("/api/jobs/{id}", self._get)
        app.router.add_post("/api/jobs/{id}/stop", self._stop)
        app.router.add_get("/api/jobs/{id}/logs/tail", self._tail)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="expired")
        if self.status != 200 or self.body is not None:
            return web.Response(status=self.status, text=self.body or "broken")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(list(self.jobs.values()))

    async def _get(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.Response(status=404, text=f"Job {request.match_info['id']} does not exist")
        return web.json_response(job)

    async def _stop(self, request: web.Request) -> web.Response:
        self.jobs[request.match_info["id"]]["status"] = "STOPPED"
        return web.json_response({"stopped": True})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        name, sent = request.match_info["id"], 0
        while not socket.closed and self.jobs[name]["status"] == "RUNNING":
            text = self.logs.get(name, "")
            if self.drop_log_after and len(text) > self.drop_log_after:
                await socket.send_str(text[sent : self.drop_log_after])
                self.drop_log_after = 0
                break
            if len(text) > sent:
                await socket.send_str(text[sent:])
                sent = len(text)
            await asyncio.sleep(0.02)
        await socket.close()
        return socket


def job_for(server: Server, root: Path, name: str = "job-1") -> dict[str, Any]:
    catalog = Catalog(str(root))
    node = catalog.at(catalog.node_prefix("dag", "run", name, -1))
    return JobRef(
        launcher="jobs_api", submission_id=name, attempt=1, ray_conn_id="ray_default", address=server.url,
        spec_uri=f"{node.prefix_uri}/attempt_1/spec.json", spec_sha256="0" * 64, catalog_uri=catalog.uri,
        node_prefix=node.prefix_uri,
    ).model_dump(mode="json")  # fmt: skip


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def connect(token: str = "good") -> None:
        fields = {"conn_type": "ray", "host": "elsewhere", "password": token}
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(fields))

    connect()
    return connect


async def event_of(trigger: RayJobTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError("no event")


def in_debug(coroutine: Any) -> tuple[Any, list[str]]:
    """Run a coroutine in a loop that reports callbacks slower than 0.3 s; return its result and those reports.

    The server runs in the same loop: a request that blocked it would never be answered.
    """
    slow: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "took" in record.getMessage():
                slow.append(record.getMessage())

    handler = Handler()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        with asyncio.Runner(debug=True) as runner:
            runner.get_loop().slow_callback_duration = 0.3
            return runner.run(coroutine), slow
    finally:
        logger.removeHandler(handler)


def test_the_wait_blocks_nothing_and_ends_with_one_event(tmp_path: Path, connected: Any) -> None:
    async def scene() -> list[dict[str, Any]]:
        async with Server().running() as server:
            server.add("job-1", "PENDING")
            trigger = RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05)
            asyncio.get_running_loop().call_later(0.3, server.jobs["job-1"].update, {"status": "RUNNING"})
            asyncio.get_running_loop().call_later(
                0.8, server.jobs["job-1"].update, {"status": "SUCCEEDED", "message": "done"}
            )
            return [event.payload async for event in trigger.run()]

    # The first run imports what the second needs: an import is not the loop's everyday.
    in_debug(scene())
    events, slow = in_debug(scene())
    assert [(event["state"], event["message"]) for event in events] == [("SUCCEEDED", "done")]
    assert not slow


def test_a_job_that_has_failed_at_the_first_look(tmp_path: Path, connected: Any) -> None:
    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            server.add("job-1", "FAILED")
            return await event_of(RayJobTrigger(job_for(server, tmp_path)))

    assert asyncio.run(scene())["state"] == "FAILED"


def test_a_forgotten_job(tmp_path: Path, connected: Any) -> None:
    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            return await event_of(RayJobTrigger(job_for(server, tmp_path)))

    assert asyncio.run(scene())["state"] == "UNKNOWN"


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, "Traceback"), (503, "busy"), (200, "<html>"), (200, "{}"), (200, '{"status": "ODD"}'), (200, "[1, null]")],
)
def test_transient_faults_are_outlived(tmp_path: Path, connected: Any, status: int, body: str) -> None:
    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            server.add("job-1")
            server.status, server.body = status, body

            def heal() -> None:
                server.status, server.body = 200, None
                server.jobs["job-1"]["status"] = "SUCCEEDED"

            asyncio.get_running_loop().call_later(0.5, heal)
            return await event_of(RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05, grace_s=20))

    assert asyncio.run(scene())["state"] == "SUCCEEDED"


def test_a_silent_cluster_is_given_up_after_the_grace(tmp_path: Path, connected: Any) -> None:
    async def scene() -> dict[str, Any]:
        server = Server()
        server.url = "http://127.0.0.1:9"
        return await event_of(RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05, grace_s=0.5))

    event = asyncio.run(scene())
    assert event["state"] == "UNREACHABLE"
    assert "tried for 0.5 s" in event["message"]


def test_a_renewed_token_is_read_from_the_connection(
    tmp_path: Path, connected: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_raynode.triggers import _client

    monkeypatch.setattr(_client, "_REFRESH_S", 0.1)

    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            server.add("job-1")

            def renew() -> None:
                server.token = "renewed"
                connected("renewed")

            loop = asyncio.get_running_loop()
            loop.call_later(0.4, renew)
            loop.call_later(1.2, server.jobs["job-1"].update, {"status": "SUCCEEDED"})
            return await event_of(RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05, grace_s=20))

    assert asyncio.run(scene())["state"] == "SUCCEEDED"


def test_a_pending_job_is_stopped_after_the_startup_timeout(tmp_path: Path, connected: Any) -> None:
    async def scene() -> tuple[dict[str, Any], str]:
        async with Server().running() as server:
            server.add("job-1", "PENDING")
            trigger = RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05, startup_timeout_s=0.3)
            return await event_of(trigger), server.jobs["job-1"]["status"]

    event, status = asyncio.run(scene())
    assert event["state"] == "STARTUP_TIMEOUT"
    assert status == "STOPPED"


@pytest.mark.parametrize(("policy", "status"), [("stop", "STOPPED"), ("detach", "RUNNING")])
def test_a_user_who_kills_the_task(tmp_path: Path, connected: Any, policy: Any, status: str) -> None:
    async def scene() -> str:
        async with Server().running() as server:
            server.add("job-1")
            trigger = RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05, on_kill=policy)
            waiting = asyncio.create_task(event_of(trigger))
            await asyncio.sleep(0.2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            # As the triggerer does: a cancelled trigger is told that a user did it.
            assert server.jobs["job-1"]["status"] == "RUNNING", "a restart of the triggerer stops nothing"
            await trigger.on_kill()
            return str(server.jobs["job-1"]["status"])

    assert asyncio.run(scene()) == status
    marks = list(tmp_path.rglob("stop.json"))
    assert bool(marks) == (policy == "stop")


def test_the_log_survives_reconnects_and_hand_overs(tmp_path: Path, connected: Any) -> None:
    """Each line comes once: over a broken connection, and when another triggerer goes on."""
    shown: list[str] = []
    lines = [f"{'    ' * (number % 3)}line {number} größe" for number in range(600)]

    class Shown(RayJobTrigger):
        def _line(self, line: str) -> None:
            shown.append(line)

    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            server.add("job-1")
            server.logs["job-1"] = ""
            server.drop_log_after = 2000
            job = job_for(server, tmp_path)

            async def write() -> None:
                for line in lines:
                    server.logs["job-1"] += line + "\n"
                    await asyncio.sleep(0.008)

            writing = asyncio.create_task(write())
            for _ in range(3):  # three triggerers, one after the other
                waiting = asyncio.create_task(event_of(Shown(job, poll_interval_s=0.05)))
                await asyncio.sleep(1.5)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            last = asyncio.create_task(event_of(Shown(job, poll_interval_s=0.05)))
            await writing
            await asyncio.sleep(1.0)
            server.jobs["job-1"]["status"] = "SUCCEEDED"
            return await last

    event = asyncio.run(scene())
    text = "".join(f"{line}\n" for line in lines)
    assert shown == lines[: len(shown)], "none lost, none twice, indentation as it was"
    assert event["offset"] == len("".join(f"{line}\n" for line in shown).encode())
    assert event["offset"] == len(text.encode())


def test_many_waiters_are_one_request_per_round(tmp_path: Path, connected: Any) -> None:
    async def scene() -> tuple[list[str], float]:
        async with Server().running() as server:
            names = [f"job-{number}" for number in range(200)]
            for name in names:
                server.add(name, "PENDING")
            triggers = [RayJobTrigger(job_for(server, tmp_path, name), poll_interval_s=0.25) for name in names]
            waiting = [asyncio.create_task(event_of(trigger)) for trigger in triggers]
            await asyncio.sleep(3)
            for job in server.jobs.values():
                job["status"] = "SUCCEEDED"
            begin = time.monotonic()
            events = await asyncio.gather(*waiting)
            assert {event["state"] for event in events} == {"SUCCEEDED"}
            return server.requests, time.monotonic() - begin

    requests, seconds = asyncio.run(scene())
    assert len(requests) < 40, requests[:5]
    assert seconds < 10


def test_what_a_trigger_keeps_holds_no_secret(tmp_path: Path, connected: Any) -> None:
    server = Server()
    server.url = "http://127.0.0.1:9"
    path, arguments = RayJobTrigger(job_for(server, tmp_path), offset=7).serialize()
    assert "good" not in json.dumps(arguments)
    from airflow.sdk._shared.module_loading import import_string

    again = import_string(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)


def test_a_wrong_token_ends_the_wait_at_once(tmp_path: Path, connected: Callable[..., None]) -> None:
    connected("wrong")

    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            server.add("job-1")
            return await event_of(RayJobTrigger(job_for(server, tmp_path), poll_interval_s=0.05, grace_s=300))

    event = asyncio.run(asyncio.wait_for(scene(), 10))
    assert event["state"] == "UNREACHABLE"
    assert "does not accept the token of connection ray_default" in event["message"]
    assert "tried for" not in event["message"]


def test_a_connection_that_is_gone_ends_the_wait_at_once(tmp_path: Path) -> None:
    async def scene() -> dict[str, Any]:
        async with Server().running() as server:
            job = job_for(server, tmp_path) | {"ray_conn_id": "nobody"}
            return await event_of(RayJobTrigger(job, poll_interval_s=0.05, grace_s=300))

    event = asyncio.run(asyncio.wait_for(scene(), 10))
    assert event["state"] == "UNREACHABLE"
    assert "connection nobody is not defined" in event["message"]
    assert "AIRFLOW_CONN_NOBODY" in event["message"]


def test_two_connections_for_one_address_keep_their_own_tokens(
    tmp_path: Path, connected: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "ray", "host": "elsewhere", "password": "wrong"}))

    async def scene() -> list[dict[str, Any]]:
        async with Server().running() as server:
            server.add("job-1", "SUCCEEDED")
            other = job_for(server, tmp_path) | {"ray_conn_id": "other"}
            triggers = [RayJobTrigger(job, poll_interval_s=0.05) for job in (job_for(server, tmp_path), other)]
            return list(await asyncio.gather(*(event_of(each) for each in triggers)))

    right, wrong = asyncio.run(asyncio.wait_for(scene(), 10))
    assert right["state"] == "SUCCEEDED"
    assert wrong["state"] == "UNREACHABLE" and "token of connection other" in wrong["message"]
