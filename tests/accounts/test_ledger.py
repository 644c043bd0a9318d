"""The money of a job: reserved at create, settled by the real length, refunded in full for failures.

At the end of every test the ledger adds up to what the videos cost and what is still held for them.
"""

import pytest
from accounts.billing import COST, HELD, PRICE, Open, create, shown
from fakes.openai import FakeOpenAI
from fakes.server import Answer
from money import Operator
from samples import Samples

pytestmark = pytest.mark.anyio


async def test_what_was_made_is_charged_by_its_real_length(admin: Operator) -> None:
    video_id = await create(admin)
    assert await admin.ledger(video_id) == [("reserve", -HELD)]
    assert (await shown(admin, video_id))["settlement"] == "held"
    video = await admin.gateway.finish(video_id)
    assert (video["cost_estimate"], video["cost"]) == (0.4, 0.025)
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    assert (await shown(admin, video_id))["settlement"] == "settled"


async def test_each_output_is_settled_for_itself(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(admin, n=3)
    await admin.gateway.worker.run_once()
    fake.fail("video_2", "server_error", "no GPU")
    video = await admin.gateway.finish(video_id)
    assert (video["status"], video["cost_estimate"], video["cost"]) == ("completed", 1.2, 0.05)
    entries = await admin.ledger(video_id)
    assert entries[:1] == [("reserve", -3 * HELD)]
    assert sorted(entries[1:]) == [("refund", HELD), ("settle", HELD - COST), ("settle", HELD - COST)]


async def test_a_failure_is_refunded_in_full(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    fake.fail("video_1", "server_error", "no GPU")
    assert (await admin.gateway.finish(video_id))["cost"] is None
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert (await shown(admin, video_id))["settlement"] == "refunded"


async def test_a_refusal_is_refunded_in_full(admin: Operator, fake: FakeOpenAI) -> None:
    fake.script("submit", fake.refusal(400, "nothing of that kind", "invalid_prompt"))
    video_id = await create(admin)
    assert (await admin.gateway.finish(video_id))["status"] == "failed"
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]


async def test_a_job_that_was_never_sent_is_refunded_when_it_is_cancelled(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(admin)
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert fake.submits == []


async def test_a_cancelled_job_is_refunded_once_its_task_has_stopped(admin: Operator) -> None:
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    found = await shown(admin, video_id)
    assert (found["status"], found["settlement"]) == ("failed", "held"), "status and money are two questions"
    await admin.gateway.worker.run_once()
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]


async def test_a_cancelled_job_that_was_made_all_the_same_is_charged(admin: Operator, fake: FakeOpenAI) -> None:
    """An upstream says `deleted` of a finished task too, and has charged for it."""
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    fake.finish("video_1")
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    await admin.gateway.worker.run_once()
    assert fake.deletes == []
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", 0)], "by the length asked for"
    found = await shown(admin, video_id)
    assert (found["status"], found["settlement"], found["cost_micros"]) == ("failed", "settled", HELD)


async def test_a_cancelled_job_whose_task_is_unknown_for_a_moment_is_charged(admin: Operator, fake: FakeOpenAI) -> None:
    """One 404 is no end, here as with every other poll: the upstream may just be deploying."""
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    fake.script("poll", Answer(404), Answer(404), Answer(500), Answer(404), Answer(404))
    for _ in range(5):
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(70)
    assert (await shown(admin, video_id))["settlement"] == "held"
    fake.finish("video_1")
    await admin.gateway.worker.run_once()
    assert (await shown(admin, video_id))["cost_micros"] == HELD


async def test_a_cancelled_job_whose_task_is_gone_is_refunded(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    fake.jobs.clear()
    for _ in range(3):
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(70)
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]


async def test_a_late_success_is_settled(opened: Open, fake: FakeOpenAI) -> None:
    async with opened(job_deadline_s=60) as admin:
        fake.polls_until_done = 10_000
        fake.script("cancel", Answer(405))
        video_id = await create(admin)
        video = await admin.gateway.finish(video_id)
        assert video["error"]["code"] == "deadline_exceeded"
        assert (await shown(admin, video_id))["settlement"] == "held"
        fake.finish("video_1")
        admin.gateway.clock.advance(100)
        await admin.gateway.worker.run_once()
        found = await shown(admin, video_id)
        assert (found["status"], found["settlement"], found["cost_micros"]) == ("failed", "settled", HELD)


async def test_a_late_success_of_a_request_without_a_length_is_charged_as_it_was_held(opened: Open) -> None:
    """With several routes it is unknown at create which of their default lengths will be used."""
    providers = {"sandbox": {"kind": "sandbox"}}
    prices = {"sandbox/testcard": PRICE, "sandbox/slow": PRICE / 2}
    models = {"card": {"routes": ["sandbox/testcard", "sandbox/slow"]}}
    async with opened(providers=providers, prices=prices, models=models) as admin:
        video_id = str((await admin.gateway.create(model="card"))["id"])
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(5)
        await admin.gateway.client.delete(f"/v1/videos/{video_id}")
        await admin.gateway.worker.run_once()
        assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", 0)]
        assert (await shown(admin, video_id))["cost_micros"] == HELD


async def test_an_extension_is_charged_by_what_it_adds(admin: Operator, fake: FakeOpenAI) -> None:
    """Its file contains the source video too, which is already paid for. The minimum charge is one second."""
    source = await create(admin)
    await admin.gateway.finish(source)
    body = {"video": {"id": source}, "prompt": "on", "seconds": "0.2"}
    extended = await admin.gateway.client.post("/v1/videos/extensions", json=body)
    video = await admin.gateway.finish(extended.json()["id"])
    assert (video["status"], video["cost_estimate"], video["cost"]) == ("completed", 0.1, 0.1)


@pytest.mark.parametrize("path", ["remix", "edits"])
async def test_a_video_made_from_a_longer_one_is_held_by_the_length_of_its_source(
    admin: Operator, fake: FakeOpenAI, samples: Samples, path: str
) -> None:
    """Only the added part of an extension is charged; its file contains the source video too."""
    fake.file = samples("long.mp4")
    source = await create(admin)
    assert (await admin.gateway.finish(source))["output"]["duration_seconds"] == 10
    at, more = (path, {"video": {"id": source}}) if path == "edits" else (f"{source}/{path}", {})
    answer = await admin.gateway.client.post(f"/v1/videos/{at}", json={"prompt": "at dusk", **more})
    made = answer.json()
    assert (made["seconds"], made["cost_estimate"]) == ("4", 1.0)


async def test_fail_over_keeps_one_hold_and_charges_where_it_was_made(opened: Open, fake: FakeOpenAI) -> None:
    """The hold is the highest price of all routes; the charge is the price of the route that made the video."""
    prices = {"up/sora-2": PRICE, "spare/sora-2": 0.3}
    async with opened(prices=prices, models={"clip": {"routes": ["up/sora-2", "spare/sora-2"]}}) as admin:
        fake.script("submit", fake.refusal(402, "no credit", "insufficient_quota"))
        video_id = await create(admin, model="clip")
        assert (await admin.gateway.get(video_id))["cost_estimate"] == 0.4
        video = await admin.gateway.finish(video_id)
        assert (video["provider"], video["cost"]) == ("spare", 0.075)
        assert await admin.ledger(video_id) == [("reserve", -3 * HELD), ("settle", 3 * HELD - 3 * COST)]
        assert [a["settlement"] for a in (await shown(admin, video_id))["attempts"]] == ["moved", "settled"]


async def test_a_price_that_changes_does_not_change_what_runs(opened: Open) -> None:
    async with opened() as admin:
        video_id = await create(admin)
    async with opened(prices={"up/sora-2": 99}) as admin:
        assert (await admin.gateway.finish(video_id))["cost"] == 0.025


async def test_priced_at_zero_is_not_unpriced(opened: Open) -> None:
    async with opened(prices={"up/sora-2": 0}) as admin:
        free = await create(admin)
        unknown = await create(admin, model="up/other")
        assert (await admin.gateway.finish(free))["cost"] == 0
        assert (await admin.gateway.finish(unknown))["cost"] is None
        assert await admin.ledger(free) == [("reserve", 0), ("settle", 0)]
        assert await admin.ledger(unknown) == [("reserve", None), ("settle", None)]
        (row,) = await admin.usage()
        assert (row["outputs"], row["cost_usd"], row["unpriced_outputs"]) == (2, 0, 1)
