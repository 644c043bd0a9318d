"""Costs that upstreams report: kept beside ours and compared, never charged."""

import json
from typing import Any

import pytest
from accounts.billing import COST, Open, create, shown
from fakes.openai import FakeOpenAI
from money import Operator

from app.telemetry.metrics import REGISTRY

pytestmark = pytest.mark.anyio


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"gateway_underpriced_{name}_total", {"provider": "up"}) or 0


async def made(admin: Operator, fake: FakeOpenAI, cost: Any) -> dict[str, Any]:
    """The attempt of a finished video for which the upstream reports `cost`."""
    fake.named = {"usage": {"cost": cost}}
    video_id = await create(admin)
    assert (await admin.gateway.finish(video_id))["cost"] == COST / 1_000_000
    attempt: dict[str, Any] = (await shown(admin, video_id))["attempts"][0]
    return attempt


async def test_a_dearer_report_is_counted_and_shown_and_not_charged(admin: Operator, fake: FakeOpenAI) -> None:
    before = counted("costs"), counted("cost_dollars")
    attempt = await made(admin, fake, 0.03)
    assert (attempt["cost_micros"], attempt["reported_micros"]) == (COST, 30_000)
    assert (counted("costs") - before[0], round(counted("cost_dollars") - before[1], 6)) == (1, 0.005)
    await made(admin, fake, 0.0262)  # within 5 %
    assert counted("costs") - before[0] == 1
    (row,) = await admin.usage()
    assert (row["cost_usd"], row["reported_usd"], row["underpriced_usd"]) == (0.05, 0.0562, 0.005)
    entries = [entry for entry in (await admin.ask("GET", "ledger"))["data"] if entry["kind"] == "settle"]
    assert [entry["reported_micros"] for entry in entries] == [26_200, 30_000]


@pytest.mark.parametrize(
    "cost", [None, True, -1, 1e300, "0.07", [], {}, "nan", "inf", pytest.param(10**400, id="10**400")]
)
async def test_a_report_that_is_no_amount_is_none(admin: Operator, fake: FakeOpenAI, cost: Any) -> None:
    assert (await made(admin, fake, cost))["reported_micros"] is None


async def test_a_late_success_keeps_its_report(admin: Operator, fake: FakeOpenAI) -> None:
    fake.named = {"usage": {"cost": 0.07}}
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    fake.finish("video_1")
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    admin.gateway.clock.advance(20)
    await admin.gateway.worker.run_once()
    (entry,) = (e for e in (await admin.ask("GET", f"ledger?video={video_id}"))["data"] if e["kind"] == "settle")
    assert entry["reported_micros"] == 70_000, json.dumps(entry)


async def test_a_report_without_a_price_is_kept(opened: Open, fake: FakeOpenAI) -> None:
    fake.named = {"usage": {"cost": 0.07}}
    async with opened(prices={}) as admin:
        video_id = await create(admin)
        await admin.gateway.finish(video_id)
        (row,) = await admin.usage()
        assert (row["unpriced_outputs"], row["reported_usd"], row["underpriced_usd"]) == (1, 0.07, 0)
