"""A job never costs more than was held for it, whatever its file says; what is beyond is shown to the operator."""

from typing import Any

import pytest
from accounts.billing import HELD, Open, create, shown
from fakes.openai import FakeOpenAI
from fakes.server import sample_mp4
from money import Operator

from app.telemetry.metrics import REGISTRY

pytestmark = pytest.mark.anyio

LONG_S = 30
ONE_SECOND = 100_000


@pytest.fixture
async def fake() -> FakeOpenAI:
    fake = FakeOpenAI()
    fake.file = sample_mp4(LONG_S)
    return fake


def capped(name: str) -> float:
    return REGISTRY.get_sample_value(f"gateway_capped_{name}_total", {"provider": "up"}) or 0


async def test_a_longer_file_costs_what_was_held(admin: Operator) -> None:
    before = capped("costs"), capped("cost_dollars")
    video_id = await create(admin)
    video = await admin.gateway.finish(video_id)
    assert (video["status"], video["cost"], video["output"]["duration_seconds"]) == ("completed", 0.4, LONG_S)
    assert video["warnings"] == ["output 0 is 30 s long and was charged as 4 s: its cost was capped at $0.4"]
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", 0)]
    attempt = (await shown(admin, video_id))["attempts"][0]
    assert (attempt["cost_micros"], attempt["uncapped_micros"]) == (HELD, LONG_S * ONE_SECOND)
    assert (capped("costs") - before[0], round(capped("cost_dollars") - before[1], 6)) == (1, 2.6)
    assert [row["seconds"] for row in await admin.usage()] == [4], "the charged length is reported"


async def test_a_prepaid_balance_is_not_overdrawn_by_a_file(admin: Operator) -> None:
    project = await admin.ask("POST", "projects", status=201, name="prepaid", billing="prepaid")
    await admin.ask("POST", f"projects/{project['id']}/credits", status=201, amount_usd=0.4)
    key = await admin.key("prepaid", project=project["id"])
    async with admin.user(key) as client:
        body = {"prompt": "a paper boat", "model": "up/sora-2", "seconds": "4"}
        created = await client.post("/v1/videos", json=body)
        assert created.status_code == 202, created.text
        for _ in range(4):
            await admin.gateway.worker.run_once()
            admin.gateway.clock.advance(20)
        assert (await client.get(f"/v1/videos/{created.json()['id']}")).json()["cost"] == 0.4
    assert (await admin.ask("GET", f"projects/{project['id']}"))["available_usd"] == 0


@pytest.mark.parametrize(
    ("settings", "fields", "charged"),
    [
        pytest.param({"assumed_length_s": 20}, {"seconds": None}, 2_000_000, id="no length at all: the setting"),
        pytest.param({}, {"seconds": None}, 3_000_000, id="the measured length, below the setting of 60 s"),
        pytest.param({"prices": {"up/sora-2": 0}}, {}, 0, id="free at any length"),
        pytest.param(
            {"models": {"clip": {"routes": ["up/sora-2", "spare/sora-2"]}}},
            {"model": "clip"},
            400_000,
            id="nothing held, since the second route has no price: the length asked for",
        ),
    ],
)
async def test_a_job_without_a_hold_is_charged_up_to_its_bound(
    opened: Open, settings: dict[str, Any], fields: dict[str, Any], charged: int
) -> None:
    async with opened(**settings) as admin:
        video_id = await create(admin, **fields)
        await admin.gateway.finish(video_id)
        found = await shown(admin, video_id)
        assert (found["status"], found["cost_micros"]) == ("completed", charged)


async def test_the_models_longest_length_bounds_a_job_without_one(opened: Open) -> None:
    """The kinds of small vendors know their models' lengths."""
    async with opened(
        providers={"up": {"kind": "lumen", "api_key": "sk-lumen-1", "base_url": "http://127.0.0.1:9"}},
        prices={"up/seedance-2": 0.1},
    ) as admin:
        video_id = await create(admin, model="up/seedance-2", seconds=None)
        assert (await shown(admin, video_id))["longest_s"] == 5, "the default of the model"
        edit = await create(admin, model="up/seedance-2", seconds="9")
        assert (await shown(admin, edit))["longest_s"] == 9
