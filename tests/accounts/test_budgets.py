"""Balances of projects and budgets of keys: never overspent, whatever is created at the same time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from accounts.billing import Open, asked, create, shown
from fakes.openai import FakeOpenAI
from fakes.server import sample_mp4
from money import Operator

pytestmark = pytest.mark.anyio


async def videos_of(admin: Operator, key: dict[str, Any]) -> int:
    async with admin.user(key) as client:
        return len((await client.get("/v1/videos")).json()["data"])


@pytest.mark.parametrize("whose", ["key", "project"])
async def test_a_budget_crossed_by_one_micro_is_a_402(admin: Operator, whose: str) -> None:
    short, enough = 0.399999, 0.4
    key = await admin.key(monthly_budget_usd=short if whose == "key" else None)
    path = f"keys/{key['id']}" if whose == "key" else f"projects/{key['project']}"
    if whose == "project":
        await admin.ask("PATCH", path, monthly_budget_usd=short)
    refused = await asked(admin, key)
    assert refused.status_code == 402
    assert refused.json()["error"] == {
        "message": f"this needs $0.4 and $0.399999 is left of the {whose}'s monthly budget of $0.399999; it resets "
        "on the first of the month, UTC",
        "type": "insufficient_quota",
        "param": None,
        "code": "budget_exceeded",
    }
    assert await videos_of(admin, key) == 0
    await admin.ask("PATCH", path, monthly_budget_usd=enough)
    assert (await asked(admin, key)).status_code == 202
    assert (await asked(admin, key)).status_code == 402
    assert await videos_of(admin, key) == 1


async def test_a_length_of_next_to_nothing_is_held_for_as_a_second(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=0.4)
    tiny = {"seconds": "0.000001", "n": 4}
    assert (await asked(admin, key, **tiny)).json()["cost_estimate"] == 0.4
    refused = await asked(admin, key, **tiny)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")


async def test_a_prepaid_project_spends_its_balance_and_no_more(admin: Operator) -> None:
    key = await admin.key()
    project = f"projects/{key['project']}"
    await admin.ask("PATCH", project, billing="prepaid")
    refused = await asked(admin, key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_balance")
    assert "this needs $0.4 and the balance is $0; ask" in refused.json()["error"]["message"]
    credited = await admin.ask("POST", f"{project}/credits", status=201, amount_usd=0.5, reference="invoice 7")
    assert credited["available_usd"] == 0.5
    twice = await admin.ask("POST", f"{project}/credits", status=409, amount_usd=0.5, reference="invoice 7")
    assert "was credited to this project before" in twice["error"]["message"]
    made = (await asked(admin, key)).json()["id"]
    async with admin.user(key) as client:
        left = {"object": "balance", "billing_type": "prepaid", "available": {"amount": 0.1, "currency": "usd"}}
        assert (await client.get("/v1/balance")).json() == left
        assert (await asked(admin, key)).status_code == 402
        for _ in range(5):
            await admin.gateway.worker.run_once()
            admin.gateway.clock.advance(20)
        assert (await client.get(f"/v1/videos/{made}")).json()["cost"] == 0.025
        assert (await client.get("/openai/v1/balance")).json()["available"]["amount"] == 0.475
    assert (await asked(admin, key)).status_code == 202


async def test_simultaneous_creates_never_overspend(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=1.3)
    answers = await asyncio.gather(*(asked(admin, key) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [402] * 17
    (row,) = await admin.usage("key")
    assert (row["jobs"], row["held_usd"]) == (3, 1.2)


async def test_two_keys_of_a_project_share_its_balance(admin: Operator) -> None:
    first = await admin.key("first")
    second = await admin.key("second", project=first["project"])
    await admin.ask("PATCH", f"projects/{first['project']}", billing="prepaid")
    await admin.ask("POST", f"projects/{first['project']}/credits", status=201, amount_usd=1)
    answers = await asyncio.gather(*(asked(admin, key) for key in (first, second) * 5))
    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [402] * 8


async def test_a_repeated_create_costs_once_and_answers_even_when_the_money_is_gone(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=0.4, concurrent_jobs=1)
    first = await asked(admin, key, idempotency_key="one")
    again = await asked(admin, key, idempotency_key="one")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    refused = await asked(admin, key, idempotency_key="two")
    assert refused.status_code in (402, 429)
    await admin.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=None, concurrent_jobs=None)
    assert (await asked(admin, key, idempotency_key="two")).status_code == 202, "a refusal does not use the key up"


async def test_what_has_no_price_cannot_be_covered(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=100)
    refused = await asked(admin, key, model="up/other")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_unknown")
    assert "under [prices]" in refused.json()["error"]["message"]
    free = await admin.key()
    assert (await asked(admin, free, model="up/other")).status_code == 202


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "up/other"}, "no price is known for it, so the limit of this key"),
        ({"resolution": "720p"}, "no price is known for 720p"),
        ({"resolution": "720p"}, "name a resolution that has one: 2160p, 1080p"),
        ({}, "no price is known without a resolution"),
        ({"resolution": "1080p", "seconds": None}, "name its length"),
    ],
)
async def test_the_refusal_says_what_is_missing_to_cover_the_request(
    opened: Open, fields: dict[str, Any], said: str
) -> None:
    async with opened(prices={"up/sora-2": {"4k": 0.4, "1080p": 0.2}}) as admin:
        key = await admin.key(monthly_budget_usd=100)
        refused = await asked(admin, key, **fields)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_unknown")
        assert said in refused.json()["error"]["message"]
        for resolution in ("4k", "2160p", "4K"):
            assert (await asked(admin, key, resolution=resolution)).json()["cost_estimate"] == 1.6


async def test_an_uploaded_video_has_no_length_to_cover(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=100)
    async with admin.user(key) as client:
        files = {"video": ("a.mp4", sample_mp4())}
        refused = await client.post("/v1/videos/edits", data={"prompt": "x", "model": "up/sora-2"}, files=files)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_unknown")
    assert "edit a video of this gateway" in refused.json()["error"]["message"]


async def test_limited_money_goes_only_where_a_price_is_known(opened: Open) -> None:
    async with opened(models={"clip": {"routes": ["spare/sora-2", "up/sora-2"]}}) as admin:
        key = await admin.key(monthly_budget_usd=100)
        video = (await asked(admin, key, model="clip")).json()
        assert (video["provider"], video["cost_estimate"]) == ("up", 0.4)


async def test_a_budget_set_later_counts_what_was_spent_this_month(admin: Operator) -> None:
    key = await admin.key()
    assert (await asked(admin, key)).status_code == 202
    await admin.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=0.5)
    await admin.ask("PATCH", f"projects/{key['project']}", billing="prepaid")
    async with admin.user(key) as client:
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == -0.4
    await admin.ask("PATCH", f"projects/{key['project']}", billing="postpaid")
    async with admin.user(key) as client:
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == 0.1
    assert (await asked(admin, key)).status_code == 402


async def test_a_project_that_goes_by_the_id_of_its_key_is_counted_apart(admin: Operator, database_url: str) -> None:
    """Before there were projects, a key with no project named was its own; those were made projects as they were."""
    key = await admin.key()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        project = "insert into projects (id, name, billing, created_at) values (%s, 'old', 'postpaid', now())"
        await connection.execute(project, (key["id"],))
        await connection.execute("update keys set project_id = id where id = %s", (key["id"],))
    await admin.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=0.8)
    await admin.ask("PATCH", f"projects/{key['id']}", monthly_budget_usd=2)
    other = await admin.key(project=key["id"])
    assert (await asked(admin, other)).status_code == 202
    answers = [(await asked(admin, key)).status_code for _ in range(3)]
    assert answers == [202, 202, 402]
    assert (await admin.ask("GET", f"projects/{key['id']}"))["available_usd"] == 0.8


async def test_a_budget_starts_anew_with_the_month_and_settles_in_the_old_one(opened: Open, fake: FakeOpenAI) -> None:
    async with opened(job_deadline_s=100 * 86_400) as admin:
        admin.gateway.clock.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
        key = await admin.key(monthly_budget_usd=0.4)
        assert (await asked(admin, key)).status_code == 202
        assert (await asked(admin, key)).status_code == 402
        admin.gateway.clock.advance(120)
        assert (await asked(admin, key)).status_code == 202, "another month"
        for _ in range(6):
            await admin.gateway.worker.run_once()
            admin.gateway.clock.advance(20)
        assert {row["day"]: row["cost_usd"] for row in await admin.usage("day")} == {
            "2026-11-30": 0.025,
            "2026-12-01": 0.025,
        }
        async with admin.user(key) as client:
            assert (await client.get("/v1/balance")).json()["available"]["amount"] == 0.375


async def test_a_clock_that_jumps_loses_no_money(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=10)
    made = [(await asked(admin, key)).json()["id"]]
    for days in (400, -800, 3_000, -2_600):
        admin.gateway.clock.now += timedelta(days=days)
        made.append((await asked(admin, key)).json()["id"])
        await admin.gateway.worker.run_once()
        await admin.check_sums()
    for _ in range(8):
        admin.gateway.clock.advance(60)
        await admin.gateway.worker.run_once()
    async with admin.user(key) as client:
        found = [(await client.get(f"/v1/videos/{video_id}")).json() for video_id in made]
    assert {video["status"] for video in found} <= {"completed", "failed"}
    assert {(await shown(admin, video_id))["settlement"] for video_id in made} <= {"settled", "refunded"}


REQUESTS = {
    "openai": ("/v1/videos", {"prompt": "x", "model": "up/sora-2", "seconds": "4"}),
    "lunos": ("/v1/video/generations", {"prompt": "x", "model": "up/sora-2"}),
    "lumen": ("/v1/videos/generations", {"prompt": "x", "model": "up/sora-2", "duration": 4}),
    "luma": ("/luma/generations", {"user_prompt": "x", "model_name": "up/sora-2", "duration": 4}),
    "apilaplas": ("/v2/generate/video/luma-ai/generation", {"prompt": "x", "model": "up/sora-2", "duration": 4}),
}


@pytest.mark.parametrize("dialect", REQUESTS)
async def test_a_402_has_the_shape_of_each_dialect(admin: Operator, dialect: str) -> None:
    path, body = REQUESTS[dialect]
    key = await admin.key(monthly_budget_usd=0)
    async with admin.user(key) as client:
        refused = await client.post(path, json=body)
    assert refused.status_code == 402
    document = refused.json()
    error = document.get("error", document)
    said = error if isinstance(error, str) else error["message"]
    assert "monthly budget of $0;" in said or "name its length" in said
    assert (
        set(document)
        == {
            "openai": {"error"},
            "lunos": {"error"},
            "lumen": {"error"},
            "luma": {"code", "message", "data"},
            "apilaplas": {"message", "path", "requestId", "statusCode", "timestamp"},
        }[dialect]
    )
    await admin.check_sums()


async def test_a_dry_run_touches_no_money(admin: Operator) -> None:
    key = await admin.key(monthly_budget_usd=0.1)
    async with admin.user(key) as client:
        body = {"prompt": "x", "model": "up/sora-2", "seconds": "4", "n": 2}
        priced = (await client.post("/v1/videos?dryRun=true", json=body)).json()
        assert (priced["total_cost_micros"], priced["components"][0]["quantity"]) == (800_000, 8)
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == 0.1


async def test_a_balance_without_a_limit_has_no_amount(admin: Operator) -> None:
    answer = (await admin.gateway.client.get("/v1/balance")).json()
    assert answer == {"object": "balance", "billing_type": "postpaid", "available": {"amount": None, "currency": "usd"}}


async def test_the_project_of_a_static_key_can_be_limited(admin: Operator) -> None:
    video_id = await create(admin)
    project = (await shown(admin, video_id))["project"]
    assert project.startswith("static_")
    await admin.ask("PATCH", f"projects/{project}", monthly_budget_usd=0.5)
    body = {"prompt": "x", "model": "up/sora-2", "seconds": "4"}
    assert (await admin.gateway.client.post("/v1/videos", json=body)).status_code == 402
    assert (await admin.gateway.bob.post("/v1/videos", json=body)).status_code == 202
