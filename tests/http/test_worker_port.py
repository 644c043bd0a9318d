"""The port of a separate worker: its paths, its health, and what it shows while the worker or the database is stuck."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from fakes.server import closed_port
from harness import Running, StartGateway
from processes import until

from app.http.worker_port import WorkerPort
from app.telemetry.metrics import SharedGauge

pytestmark = pytest.mark.anyio

SHARED = {gauge.name for gauge in SharedGauge.every} - {"gateway_budget_used_ratio"}
"""Gauges that have a value even if there is nothing to tell."""


@dataclass
class Worked:
    """A gateway with its worker, of which the port tells."""

    gateway: Running
    port: WorkerPort
    http: httpx.AsyncClient

    async def health(self) -> tuple[int, str]:
        answer = await self.http.get("/healthz")
        return answer.status_code, answer.json()["status"]

    async def until_health_is(self, status: int) -> str:
        async def look() -> str | None:
            found, text = await self.health()
            return text if found == status else None

        return await until(look)

    async def shared(self, client: httpx.AsyncClient, *, anew: bool = True) -> set[str]:
        """The shared gauges that a scrape shows; `anew`: read for it."""
        if anew:
            self.gateway.gateway.gauges.read_at = -math.inf
        lines = (await client.get("/metrics")).text.splitlines()
        return {line.partition("{")[0].partition(" ")[0] for line in lines} & SHARED


@pytest.fixture
async def worked(start_gateway: StartGateway) -> AsyncIterator[Worked]:
    async with start_gateway(worker_tick_s=0.02) as gateway:
        url = httpx.URL(closed_port())
        assert url.port is not None
        port = WorkerPort(gateway.gateway.settings, url.port, allowance_s=0.5, client_s=0.5)
        try:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
                yield Worked(gateway, port, http)
        finally:
            await asyncio.to_thread(port.close)


async def test_a_worker_is_healthy_as_long_as_it_ticks(worked: Worked, database_url: str) -> None:
    assert await worked.health() == (503, "starting")
    assert await worked.shared(worked.http) == set(), "nothing is known yet"
    running = asyncio.create_task(worked.gateway.worker.run())
    worked.port.watch(worked.gateway.worker, worked.gateway.gateway.gauges)
    assert await worked.until_health_is(200) == "ok"
    assert await worked.shared(worked.http) == SHARED
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("begin")
        await connection.execute("lock table attempts in access exclusive mode")  # its next claim waits for ever
        assert (await worked.until_health_is(503)).startswith("the worker's loop has been stuck for ")
        assert await worked.shared(worked.http) == set(), "an old zero would keep the alerts silent"
        assert await worked.shared(worked.gateway.client, anew=False) == set()
        await connection.execute("rollback")
    assert await worked.until_health_is(200) == "ok"
    assert await worked.shared(worked.http) == await worked.shared(worked.gateway.client) == SHARED
    worked.gateway.worker.stop()
    await running
    assert await worked.health() == (200, "ok"), "it ends its calls, and is not to be killed for it"


async def test_other_paths_and_methods_are_refused(worked: Worked) -> None:
    for path in ("/", "/metrics/", "/healthz/x", "/favicon.ico", "/v1/videos"):
        answer = await worked.http.get(path)
        assert (answer.status_code, answer.text) == (404, "this port has /metrics and /healthz\n")
    for method in ("POST", "OPTIONS", "BREW"):
        assert (await worked.http.request(method, "/metrics")).status_code == 405
    page = await worked.http.get("/metrics")
    assert (page.status_code, "gateway_build_info" in page.text) == (200, True)
    assert page.headers["content-type"].startswith("text/plain; version=")
    head = await worked.http.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_client_that_sends_nothing_is_given_up(worked: Worked, capfd: pytest.CaptureFixture[str]) -> None:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(worked.http.base_url.host, worked.http.base_url.port)
        writer.write(b"GET /healthz HT")
        assert await reader.read() == b"", "closed without an answer"
        writer.close()
    assert (await worked.health())[0] == 503
    assert "Traceback" not in capfd.readouterr().err
