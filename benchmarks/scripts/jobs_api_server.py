"""A process that speaks the part of Ray's Jobs API that waiting needs, for N jobs that end after a while.

    python benchmarks/scripts/jobs_api_server.py --jobs 1000 --seconds 60

Prints its port. `GET /_counts` gives back the requests by route.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from typing import Any

from aiohttp import web


class Jobs:
    """Jobs that run for `seconds` and write a line of log each `log_every`."""

    def __init__(self, number: int, seconds: float, log_every: float) -> None:
        self.names = [f"job-{each}" for each in range(number)]
        self.begin = time.monotonic()
        self.seconds = seconds
        self.log_every = log_every
        self.counts: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        """Whether the jobs have ended."""
        return time.monotonic() - self.begin > self.seconds

    def details(self, name: str) -> dict[str, Any]:
        """A job as Ray describes it."""
        return {
            "submission_id": name,
            "job_id": None,
            "type": "SUBMISSION",
            "status": "SUCCEEDED" if self.over else "RUNNING",
            "entrypoint": "exec python -m airflow_provider_raynode.runtime",
            "message": "",
            "metadata": {"dag_id": "benchmark", "run_id": "run", "node_id": name},
            "runtime_env": {},
        }

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/jobs/"""
        self.counts["list"] += 1
        return web.json_response([self.details(name) for name in self.names])

    async def get(self, request: web.Request) -> web.Response:
        """GET /api/jobs/{id}"""
        self.counts["get"] += 1
        return web.json_response(self.details(request.match_info["id"]))

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        """WebSocket of a job's log."""
        self.counts["tail"] += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        number = 0
        while not self.over and not socket.closed:
            await socket.send_str(f"line {number} of {request.match_info['id']}\n")
            number += 1
            await asyncio.sleep(self.log_every)
        await socket.close()
        return socket

    async def counted(self, request: web.Request) -> web.Response:
        """GET /_counts"""
        return web.json_response({"counts": self.counts, "seconds": time.monotonic() - self.begin})


async def serve(jobs: Jobs) -> None:
    """Serve until this process is killed."""
    app = web.Application()
    app.router.add_get("/api/jobs/", jobs.list)
    app.router.add_get("/api/jobs/{id}", jobs.get)
    app.router.add_get("/api/jobs/{id}/logs/tail", jobs.tail)
    app.router.add_get("/_counts", jobs.counted)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--log-every", type=float, default=5)
    args = parser.parse_args()
    asyncio.run(serve(Jobs(args.jobs, args.seconds, args.log_every)))
