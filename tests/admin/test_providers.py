"""Providers, circuits, checks and aliases in the administration API."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fakes.server import KEY, Answer, closed_port
from harness import Running, StartGateway, another_worker
from money import ADMIN, Operator, operator_of
from upstreams import Upstreams

from app.db.models import Attempt
from app.jobs import provider_figures

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def desk(start_gateway: StartGateway, **settings: Any) -> AsyncIterator[tuple[Running, Operator]]:
    async with start_gateway(admin_key=ADMIN, **settings) as gateway, operator_of(gateway) as operator:
        yield gateway, operator


async def shown(operator: Operator, name: str) -> dict[str, Any]:
    answer = await operator.ask("GET", "providers")
    assert answer["complete"] is True
    (found,) = (entry for entry in answer["data"] if entry["name"] == name)
    return dict(found)


async def test_figures_of_the_last_hour_and_day(start_gateway: StartGateway, two: Upstreams) -> None:
    one = two.fakes["one"]
    refusal = Answer(400, {"error": {"message": f"no boats, says {KEY}", "code": "no_boats"}})
    models = {"clip": {"routes": ["one/sora-2"]}}
    async with desk(start_gateway, providers=two.providers(concurrency=7), models=models) as (gateway, operator):
        for _ in range(2):
            await gateway.finish((await gateway.create(model="clip"))["id"], step_s=2)
        one.script("submit", refusal)
        failed = await gateway.create(model="one/sora-2")
        assert (await gateway.finish(failed["id"], step_s=2))["status"] == "failed"
        await gateway.create(model="one/sora-2")
        gateway.clock.advance(30)
        found = await shown(operator, "one")
        idle = await shown(operator, "two")
        (attempt,) = await gateway.attempts(failed["id"])
        assert (found["kind"], found["configured"], found["limit"]) == ("openai", True, 7)
        assert (found["under_way"], found["waiting"], found["oldest_wait_s"]) == (0, 1, 30)
        hour = found["last_hour"]
        assert (hour["submits"], hour["succeeded"], hour["failed"]) == (3, 2, 1)
        assert hour["success_rate"] == pytest.approx(2 / 3, abs=1e-3)
        assert hour["failures"] == [{"code": attempt.error_code, "count": 1}]
        assert 0 <= hour["accepted_s"]["p50"] <= hour["accepted_s"]["p95"]
        assert 0 < hour["finished_s"]["p50"] <= hour["finished_s"]["p95"] <= 60
        error = found["last_error"]
        assert (error["attempt"], error["video"], error["code"]) == (attempt.id, failed["id"], attempt.error_code)
        assert "no boats" in error["body"]
        assert KEY not in json.dumps(found)
        assert len(found["hours"]) == 24
        assert (found["hours"][-1]["submits"], found["hours"][-1]["failures"]) == (3, 1)
        assert sum(entry["submits"] for entry in found["hours"]) == 3
        assert {"model": "clip", "route": "one/sora-2"} in found["models"]
        nothing: dict[str, Any] = {"submits": 0, "succeeded": 0, "failed": 0, "success_rate": None, "failures": []}
        assert idle["last_hour"] == {**nothing, "accepted_s": None, "finished_s": None}
        assert (idle["last_error"], idle["waiting"], idle["oldest_wait_s"]) == (None, 0, None)
        gateway.clock.advance(2 * 3_600)
        later = await shown(operator, "one")
        assert (later["last_hour"]["submits"], later["last_hour"]["finished_s"]) == (0, None)
        assert [entry["submits"] for entry in later["hours"]][-4:] == [0, 3, 0, 0]


async def test_a_provider_that_is_gone_is_listed_while_jobs_run_there(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    async with start_gateway(providers=two.providers()) as gateway:
        video = await gateway.create(model="two/sora-2")
        await gateway.worker.run_once()
        assert [attempt.state for attempt in await gateway.attempts(video["id"])] == ["running"]
    left = {"one": two.providers()["one"]}
    async with desk(start_gateway, providers=left) as (gateway, operator):
        gone = await shown(operator, "two")
        assert (gone["kind"], gone["configured"], gone["limit"], gone["under_way"]) == (None, False, None, 1)
        assert gone["models"] == []
        assert (await operator.ask("POST", "providers/two/breaker", close=True, status=404))["error"]["param"] == "name"


async def test_a_breaker_is_shown_and_released(start_gateway: StartGateway, two: Upstreams) -> None:
    one = two.fakes["one"]
    one.script("submit", *[Answer(503, {"error": {"message": "down"}})] * 5)
    async with desk(start_gateway, providers=two.providers(), worker_concurrency=1) as (gateway, operator):
        video = await gateway.create(model="one/sora-2")
        for _ in range(4):
            await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        assert len(one.submits) == 5
        found = await shown(operator, "one")
        breaker, error = found["breaker"], found["last_error"]
        assert (error["code"], "down" in error["body"]) == ("upstream_unavailable", True), (
            "it waits for its next submit"
        )
        (circuit,) = breaker["projects"]
        assert (breaker["state"], circuit["state"], circuit["failures"]) == ("closed", "open", 5)
        assert datetime.fromisoformat(circuit["open_until"]) > gateway.clock.now
        gateway.clock.advance(10)
        await gateway.worker.run_once()
        assert len(one.submits) == 5, "it is paused"
        released = await operator.ask("POST", "providers/one/breaker", close=True)
        assert released["closed"] >= 1
        after = (await shown(operator, "one"))["breaker"]
        assert (after["state"], after["failures"], after["projects"]) == ("closed", 0, [])
        assert (await operator.ask("POST", "providers/one/breaker", close=True))["closed"] == 0
        (entry,) = (await operator.ask("GET", "audit?action=breaker.release"))["data"]
        assert (entry["subject"], entry["before"]) == ("one", {"circuits": released["closed"]})
        await operator.ask("GET", f"videos/{video['id']}")


async def test_jobs_that_wait_for_a_pause_are_submitted_after_a_release(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    one = two.fakes["one"]
    one.script("submit", *[Answer(503, {"error": {"message": "down"}})] * 5)
    async with desk(start_gateway, providers=two.providers(), worker_concurrency=1) as (gateway, operator):
        for _ in range(5):
            await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        gateway.clock.advance(10)  # each would be tried again; the pause has 5 seconds left
        await gateway.worker.run_once()
        await operator.ask("POST", "providers/one/breaker", close=True)
        async with another_worker(gateway) as fresh:  # which has not seen the open circuit
            await fresh.run_once()
            assert len(one.submits) == 5, "not before every process has seen it"
            gateway.clock.advance(3)
            await fresh.run_once()
        assert len(one.submits) == 10


@pytest.mark.parametrize("body", [{}, {"close": False}, {"close": None}, {"open": True}, {"close": True, "x": 1}])
async def test_a_wrong_change_of_a_breaker_is_refused(operator: Operator, body: dict[str, Any]) -> None:
    refused = await operator.client.post("/admin/v1/providers/sandbox/breaker", json=body)
    assert refused.status_code == 400, refused.text


async def test_unknown_providers_and_parameters_are_refused(operator: Operator) -> None:
    for name in ("nothing", "%00", "x" * 2_000):
        for call in ("breaker", "check"):
            answer = await operator.client.post(f"/admin/v1/providers/{name}/{call}", json={"close": True})
            assert answer.status_code == 404, answer.text
    await operator.ask("GET", "providers?name=x", status=400)
    await operator.ask("GET", "models?all=x", status=400)


async def test_a_check_reaches_the_vendor_and_repeats_no_key(start_gateway: StartGateway, two: Upstreams) -> None:
    wrong = {"kind": "openai", "base_url": f"{two.urls['two']}/v1", "api_key": "sk-sekret-0123456789"}
    away = {"kind": "openai", "base_url": f"{closed_port()}/v1", "api_key": KEY}
    providers = {**two.providers(), "wrong": wrong, "away": away}
    async with desk(start_gateway, providers=providers) as (_, operator):
        answers = {name: await operator.ask("POST", f"providers/{name}/check") for name in (*providers, "sandbox")}
    assert {name: answer["status"] for name, answer in answers.items()} == {
        **dict.fromkeys(("one", "two", "sandbox"), "ok"),
        **dict.fromkeys(("wrong", "away"), "failed"),
    }
    assert answers["one"]["text"] == "answers and accepts the key"
    assert answers["wrong"]["hint"] == "set the right key in GATEWAY_PROVIDERS__WRONG__API_KEY"
    assert "refused" in answers["away"]["text"]
    assert "sekret" not in json.dumps(answers)


async def test_aliases_show_where_their_routes_lead(start_gateway: StartGateway, two: Upstreams) -> None:
    weighted = [{"to": "one/sora-2", "weight": 3}, {"to": "two/sora-2", "weight": 1}, "gone/x"]
    models = {
        "clip": {"routes": weighted, "strategy": "weighted", "max_cost": 2.5},
        "lost": {"routes": ["luna/x"]},
    }
    async with desk(start_gateway, providers=two.providers(), models=models) as (_, operator):
        clip, lost = (await operator.ask("GET", "models"))["data"]
    assert (clip["name"], clip["usable"], clip["strategy"], clip["max_cost_usd"]) == ("clip", True, "weighted", 2.5)
    assert [(route["to"], route["weight"], route["leads_to"]) for route in clip["routes"]] == [
        ("one/sora-2", 3.0, ["one/sora-2"]),
        ("two/sora-2", 1.0, ["two/sora-2"]),
        ("gone/x", None, []),
    ]
    assert "there is no provider gone" in clip["routes"][2]["problem"]
    assert (lost["usable"], lost["routes"][0]["leads_to"]) == (False, [])


async def test_the_figures_read_a_range_of_the_primary_key(start_gateway: StartGateway, two: Upstreams) -> None:
    async with start_gateway(providers=two.providers()) as gateway:
        video = await gateway.create(model="one/sora-2")
        await gateway.finish(video["id"])
        (made,) = await gateway.attempts(video["id"])
        columns = ", ".join(name for name in Attempt.__table__.columns.keys() if name != "id")  # noqa: SIM118
        old = f"insert into attempts (id, {columns}) select 'att_0' || lpad(n::text, 25, '0'), {columns} "
        old += "from attempts cross join generate_series(1, 20000) as n"
        now = gateway.clock.now
        ages = {"hour": now - timedelta(hours=1), "day": now - timedelta(days=1)}
        parameters = {"least": f"att_{made.id[4:8]}", "most": provider_figures.MAX_COUNTED, **ages}
        async with gateway.gateway.db.reading() as connection:
            await connection.exec_driver_sql(old)
            await connection.exec_driver_sql("analyze attempts")
            explain = sa.text(f"explain (analyze, format json) {provider_figures._FIGURES.text}")
            plan = json.dumps((await connection.execute(explain, parameters)).scalar_one())
    assert "pk_attempts" in plan or "attempts_pkey" in plan
    assert "Seq Scan" not in plan
