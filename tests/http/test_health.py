"""Health checks and metrics: readiness, labels with bounded values, and access to both."""

import asyncio
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, serve
from harness import Running, StartGateway, another_worker
from prometheus_client.parser import text_string_to_metric_families
from refusals import refused

pytestmark = pytest.mark.anyio


async def test_metrics_and_readiness_details_need_a_key(start_gateway: StartGateway) -> None:
    async with start_gateway(metrics_key="sk-metrics") as gateway:
        assert (await gateway.client.get("/readyz")).json() == {"status": "ready"}
        for key in ("", "Bearer", "Bearer sk-wrong", "Basic sk-metrics"):
            refused(await gateway.client.get("/metrics", headers={"authorization": key}), None, 401)
        right = {"authorization": "Bearer sk-metrics"}
        assert "gateway_queue_age_seconds" in (await gateway.client.get("/metrics", headers=right)).text


async def test_the_database_is_not_read_for_each_scrape(gateway: Running) -> None:
    waiting = 'gateway_attempts{provider="sandbox",state="pending"} '
    assert f"{waiting}0.0" in (await gateway.client.get("/metrics")).text
    await gateway.create()
    assert f"{waiting}0.0" in (await gateway.client.get("/metrics")).text
    gateway.gateway.gauges.read_at = -math.inf
    assert f"{waiting}1.0" in (await gateway.client.get("/metrics")).text


async def samples(gateway: Running) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    gateway.gateway.gauges.read_at = -math.inf  # else a count of some seconds ago is shown
    response = await gateway.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_healthz_and_readyz_need_no_key(gateway: Running) -> None:
    health = await gateway.client.get("/healthz", headers={"authorization": ""})
    assert health.status_code == 200
    assert health.json()["status"] == "ok"
    ready = await gateway.client.get("/readyz", headers={"authorization": ""})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


async def test_metrics_of_jobs_upstreams_and_the_queue(start_gateway: StartGateway) -> None:
    fake = FakeOpenAI()
    fake.script("submit", fake.refusal(400, "no such size", "bad_size"))
    fake.script("poll", Answer(500))
    async with (
        serve(fake) as url,
        start_gateway(
            providers={
                "metered": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]},
            }
        ) as gateway,
    ):
        refused = await gateway.create(model="metered/sora-2")
        assert (await gateway.finish(refused["id"]))["status"] == "failed"
        made = await gateway.create(model="metered/sora-2")
        unlisted = await gateway.create(model="metered/whatever-a-client-invents")
        gateway.clock.advance(7)
        waiting = await samples(gateway)
        assert waiting[key("gateway_attempts", provider="metered", state="pending")] == 2
        assert waiting[key("gateway_queue_age_seconds")] == 7
        for video in (made, unlisted):
            assert (await gateway.finish(video["id"]))["status"] == "completed"
        seen = await samples(gateway)
    assert seen[key("gateway_attempts", provider="metered", state="pending")] == 0
    assert seen[key("gateway_queue_age_seconds")] == 0
    jobs = {
        " ".join(dict(labels)[label] for label in ("model", "status", "cause")).strip(): value
        for (name, labels), value in seen.items()
        if name == "gateway_jobs_total" and ("provider", "metered") in labels and value
    }
    assert jobs == {"sora-2 failed client": 1, "sora-2 completed": 1, "other completed": 1}
    calls = "gateway_upstream_request_duration_seconds_count"
    assert seen[key(calls, provider="metered", verb="submit")] == 3
    assert seen[key(calls, provider="metered", verb="poll")] == len(fake.polls)
    errors = {
        name_and_labels: value
        for name_and_labels, value in seen.items()
        if value
        and name_and_labels[0] == "gateway_upstream_errors_total"
        and ("provider", "metered") in name_and_labels[1]
    }
    assert errors == {
        key("gateway_upstream_errors_total", provider="metered", verb="submit", code="upstream_rejected"): 1,
        key("gateway_upstream_errors_total", provider="metered", verb="poll", code="upstream_unavailable"): 1,
    }


def templates(routes: Iterable[Any]) -> Iterator[str]:
    """The paths of routes as they were written, those of included routers too."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from templates(route.original_router.routes)
        elif hasattr(route, "path"):
            yield route.path


async def test_labels_of_http_metrics_are_not_chosen_by_clients(gateway: Running) -> None:
    paths = [
        "/v1/videos/video_" + "0" * 26,
        "/etc/passwd-invented",
        "/v1/no-such-thing-invented",
        "/v1/videos/a%2Fb-invented",
    ]
    for path in paths:
        await gateway.client.get(path)
        await gateway.client.request("BREWinvented", path)
    await gateway.client.put("/v1/videos")
    text = (await gateway.client.get("/metrics")).text
    assert "invented" not in text
    assert "video_0" not in text
    labels = set(re.findall(r'request_duration_seconds_count\{method="(\w+)",route="([^"]+)",status="(\d+)"', text))
    assert ("GET", "/v1/videos/{video_id}", "404") in labels
    assert ("GET", "none", "404") in labels
    assert {method for method, _, _ in labels} <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert {route for _, route, _ in labels} <= {*templates(gateway.app.routes), "none"}


async def until(gateway: Running, workers: float) -> None:
    async with asyncio.timeout(30):
        while (await samples(gateway))[key("gateway_workers")] != workers:  # noqa: ASYNC110  # the worker is a loop
            await asyncio.sleep(0.01)


async def test_workers_are_counted_and_missed(gateway: Running, database_url: str) -> None:
    async def deep() -> tuple[int, str]:
        answer = await gateway.client.get("/readyz?deep=1")
        return answer.status_code, answer.json()["status"]

    async def age(seconds: int) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("update workers set seen_at = now() - make_interval(secs => %s)", [seconds])

    assert (await samples(gateway))[key("gateway_workers")] == 0
    assert await deep() == (200, "ready"), "a worker may still be starting"
    gateway.clock.advance(301)
    assert await deep() == (503, "no worker for 301 s")
    assert (await gateway.client.get("/readyz")).status_code == 200
    refused(await gateway.client.get("/readyz?deep=x"), "deep")
    async with another_worker(gateway) as other:
        running = [asyncio.create_task(worker.run()) for worker in (gateway.worker, other)]
        await until(gateway, 2)
        assert await deep() == (200, "ready")
        other.stop()
        await running[1]
        await until(gateway, 1)
        await age(45)
        assert ((await samples(gateway))[key("gateway_workers")], (await deep())[0]) == (0, 200)
        await age(310)
        status, text = await deep()
        assert (status, text[:16]) == (503, "no worker for 31")
        gateway.worker.stop()
        await running[0]
    assert (await samples(gateway))[key("gateway_workers")] == 0
    assert await deep() == (200, "ready"), "it stopped only now"


async def test_rows_of_workers_that_ended_long_ago_are_deleted(gateway: Running, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for age_h in (23, 25):
            await connection.execute(
                "insert into workers (id, host, pid, version, started_at, seen_at) "
                "values (%s, 'h', 1, '1', now(), now() - make_interval(hours => %s))",
                [f"worker_{age_h}", age_h],
            )
        running = asyncio.create_task(gateway.worker.run())
        await until(gateway, 1)
        gateway.worker.stop()
        await running
        rows = await (await connection.execute("select id, stopped_at is null from workers order by id")).fetchall()
    assert [row for row in rows if row[1]] == [("worker_23", True)]
    assert len(rows) == 2
