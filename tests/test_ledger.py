"""Money, through the front door: reserved at create, settled by what was made, refunded in full for what was not.

At the end of every test the ledger adds up to what the videos cost and what is still held for them.
"""

import asyncio
import csv
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from shutil import rmtree
from typing import Any

import psycopg
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Hang, Reset, SlowYes, sample_mp4, serve
from harness import StartGateway, another_worker
from money import ADMIN, Operator, operator_of

pytestmark = pytest.mark.anyio

PRICE = 0.1
HELD = 400_000
"""Four seconds at that price."""
COST = 25_000
"""The fake's film has a quarter of a second."""
PICTURE = f"data:image/png;base64,{b64encode(bytes([0x89]) + b'PNG' + bytes(100)).decode()}"

Open = Callable[..., AbstractAsyncContextManager[Operator]]


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def opened(start_gateway: StartGateway, fake: FakeOpenAI) -> AsyncIterator[Open]:
    async with serve(fake) as url:

        @asynccontextmanager
        async def start(**settings: Any) -> AsyncIterator[Operator]:
            up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
            values = {
                "providers": {"up": up, "spare": up},
                "prices": {"up/sora-2": PRICE},
                "admin_key": ADMIN,
                **settings,
            }
            async with start_gateway(**values) as gateway, operator_of(gateway) as operator:
                yield operator

        yield start


@pytest.fixture
async def operator(opened: Open) -> AsyncIterator[Operator]:
    async with opened() as operator:
        yield operator


async def create(operator: Operator, **fields: Any) -> str:
    video = await operator.gateway.create(**{"model": "up/sora-2", "seconds": "4", **fields})
    return str(video["id"])


async def shown(operator: Operator, video_id: str) -> dict[str, Any]:
    return await operator.ask("GET", f"videos/{video_id}")


# A job's money


async def test_what_was_made_is_charged_by_its_real_length(operator: Operator) -> None:
    video_id = await create(operator)
    assert await operator.ledger(video_id) == [("reserve", -HELD)]
    assert (await shown(operator, video_id))["settlement"] == "held"
    video = await operator.gateway.finish(video_id)
    assert (video["cost_estimate"], video["cost"]) == (0.4, 0.025)
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    assert (await shown(operator, video_id))["settlement"] == "settled"


async def test_each_output_is_settled_for_itself(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(operator, n=3)
    await operator.gateway.worker.run_once()
    fake.fail("video_2", "server_error", "no GPU")
    video = await operator.gateway.finish(video_id)
    assert (video["status"], video["cost_estimate"], video["cost"]) == ("completed", 1.2, 0.05)
    entries = await operator.ledger(video_id)
    assert entries[:1] == [("reserve", -3 * HELD)]
    assert sorted(entries[1:]) == [("refund", HELD), ("settle", HELD - COST), ("settle", HELD - COST)]


async def test_a_failure_is_refunded_in_full(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    fake.fail("video_1", "server_error", "no GPU")
    assert (await operator.gateway.finish(video_id))["cost"] is None
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert (await shown(operator, video_id))["settlement"] == "refunded"


async def test_a_refusal_is_refunded_in_full(operator: Operator, fake: FakeOpenAI) -> None:
    fake.script("submit", fake.refusal(400, "nothing of that kind", "invalid_prompt"))
    video_id = await create(operator)
    assert (await operator.gateway.finish(video_id))["status"] == "failed"
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]


async def test_a_job_that_was_never_sent_is_refunded_when_it_is_cancelled(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(operator)
    await operator.gateway.client.delete(f"/v1/videos/{video_id}")
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert fake.submits == []


async def test_a_cancelled_job_is_refunded_once_its_task_has_stopped(operator: Operator) -> None:
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    await operator.gateway.client.delete(f"/v1/videos/{video_id}")
    found = await shown(operator, video_id)
    assert (found["status"], found["settlement"]) == ("failed", "held"), "status and money are two questions"
    await operator.gateway.worker.run_once()
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]


async def test_a_cancelled_job_that_was_made_all_the_same_is_charged(operator: Operator, fake: FakeOpenAI) -> None:
    """An upstream says `deleted` of a finished task too, and has charged for it."""
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    fake.finish("video_1")
    await operator.gateway.client.delete(f"/v1/videos/{video_id}")
    await operator.gateway.worker.run_once()
    assert fake.deletes == []
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", 0)], "by the length asked for"
    found = await shown(operator, video_id)
    assert (found["status"], found["settlement"], found["cost_micros"]) == ("failed", "settled", HELD)


async def test_a_cancelled_job_whose_task_is_unknown_for_a_moment_is_charged(
    operator: Operator, fake: FakeOpenAI
) -> None:
    """One 404 is no end, here as with every other poll: the upstream may just be deploying."""
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    await operator.gateway.client.delete(f"/v1/videos/{video_id}")
    fake.script("poll", Answer(404), Answer(404), Answer(500), Answer(404), Answer(404))
    for _ in range(5):
        await operator.gateway.worker.run_once()
        operator.gateway.clock.advance(70)
    assert (await shown(operator, video_id))["settlement"] == "held"
    fake.finish("video_1")
    await operator.gateway.worker.run_once()
    assert (await shown(operator, video_id))["cost_micros"] == HELD


async def test_a_cancelled_job_whose_task_is_gone_is_refunded(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    await operator.gateway.client.delete(f"/v1/videos/{video_id}")
    fake.jobs.clear()
    for _ in range(3):
        await operator.gateway.worker.run_once()
        operator.gateway.clock.advance(70)
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]


async def test_a_late_success_is_settled(opened: Open, fake: FakeOpenAI) -> None:
    async with opened(job_deadline_s=60) as operator:
        fake.polls_until_done = 10_000
        fake.script("cancel", Answer(405))
        video_id = await create(operator)
        video = await operator.gateway.finish(video_id)
        assert video["error"]["code"] == "deadline_exceeded"
        assert (await shown(operator, video_id))["settlement"] == "held"
        fake.finish("video_1")
        operator.gateway.clock.advance(100)
        await operator.gateway.worker.run_once()
        found = await shown(operator, video_id)
        assert (found["status"], found["settlement"], found["cost_micros"]) == ("failed", "settled", HELD)


async def test_a_late_success_of_a_request_without_a_length_is_charged_as_it_was_held(opened: Open) -> None:
    """With several routes nobody knows at create which of their own lengths it will be."""
    providers = {"sandbox": {"kind": "sandbox"}}
    prices = {"sandbox/testcard": PRICE, "sandbox/slow": PRICE / 2}
    models = {"card": {"routes": ["sandbox/testcard", "sandbox/slow"]}}
    async with opened(providers=providers, prices=prices, models=models) as operator:
        video_id = str((await operator.gateway.create(model="card"))["id"])
        await operator.gateway.worker.run_once()
        operator.gateway.clock.advance(5)
        await operator.gateway.client.delete(f"/v1/videos/{video_id}")
        await operator.gateway.worker.run_once()
        assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", 0)]
        assert (await shown(operator, video_id))["cost_micros"] == HELD


async def test_an_extension_is_charged_by_what_it_adds(operator: Operator, fake: FakeOpenAI) -> None:
    """Its file has the film that it goes on from, too; that one is paid for. A second is the least."""
    source = await create(operator)
    await operator.gateway.finish(source)
    body = {"video": {"id": source}, "prompt": "on", "seconds": "0.2"}
    extended = await operator.gateway.client.post("/v1/videos/extensions", json=body)
    video = await operator.gateway.finish(extended.json()["id"])
    assert (video["status"], video["cost_estimate"], video["cost"]) == ("completed", 0.1, 0.1)


@pytest.mark.parametrize("path", ["remix", "edits"])
async def test_what_is_made_from_a_longer_film_is_held_by_the_length_of_that(
    operator: Operator, fake: FakeOpenAI, path: str
) -> None:
    """Of an extension only what it added was asked for; its file has the film that it went on from, too."""
    scale = fake.file.index(b"mvhd") + 16
    fake.file = fake.file[:scale] + (25).to_bytes(4, "big") + fake.file[scale + 4 :]
    source = await create(operator)
    assert (await operator.gateway.finish(source))["output"]["duration_seconds"] == 10
    at, more = (path, {"video": {"id": source}}) if path == "edits" else (f"{source}/{path}", {})
    answer = await operator.gateway.client.post(f"/v1/videos/{at}", json={"prompt": "at dusk", **more})
    made = answer.json()
    assert (made["seconds"], made["cost_estimate"]) == ("4", 1.0)


async def test_fail_over_keeps_one_hold_and_charges_where_it_was_made(opened: Open, fake: FakeOpenAI) -> None:
    """What is held is the most that any route may cost; what is charged is the price of the one that made it."""
    prices = {"up/sora-2": PRICE, "spare/sora-2": 0.3}
    async with opened(prices=prices, models={"film": {"routes": ["up/sora-2", "spare/sora-2"]}}) as operator:
        fake.script("submit", fake.refusal(402, "no credit", "insufficient_quota"))
        video_id = await create(operator, model="film")
        assert (await operator.gateway.get(video_id))["cost_estimate"] == 0.4
        video = await operator.gateway.finish(video_id)
        assert (video["provider"], video["cost"]) == ("spare", 0.075)
        assert await operator.ledger(video_id) == [("reserve", -3 * HELD), ("settle", 3 * HELD - 3 * COST)]
        assert [a["settlement"] for a in (await shown(operator, video_id))["attempts"]] == ["moved", "settled"]


async def test_a_price_that_changes_does_not_change_what_runs(opened: Open) -> None:
    async with opened() as operator:
        video_id = await create(operator)
    async with opened(prices={"up/sora-2": 99}) as operator:
        assert (await operator.gateway.finish(video_id))["cost"] == 0.025


async def test_priced_at_zero_is_not_unpriced(opened: Open) -> None:
    async with opened(prices={"up/sora-2": 0}) as operator:
        free = await create(operator)
        unknown = await create(operator, model="up/other")
        assert (await operator.gateway.finish(free))["cost"] == 0
        assert (await operator.gateway.finish(unknown))["cost"] is None
        assert await operator.ledger(free) == [("reserve", 0), ("settle", 0)]
        assert await operator.ledger(unknown) == [("reserve", None), ("settle", None)]
        (row,) = await operator.usage()
        assert (row["outputs"], row["cost_usd"], row["unpriced_outputs"]) == (2, 0, 1)


# Nobody knows


async def lost(operator: Operator, fake: FakeOpenAI, **fields: Any) -> str:
    """A job whose submit was taken and never answered."""
    fake.script("submit", Reset())
    video_id = await create(operator, **fields)
    await operator.gateway.worker.run_once()
    assert (await operator.gateway.get(video_id))["error"]["code"] == "upstream_outcome_unknown"
    return video_id


async def test_an_unknown_outcome_keeps_its_hold_and_waits_for_a_decision(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(operator, fake)
    assert await operator.ledger(video_id) == [("reserve", -HELD)]
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    assert repair["actions"] == ["find", "resubmit", "fail"]
    assert {name: repair[name] for name in ("video", "video_status", "provider", "held_usd", "prompt")} == {
        "video": video_id,
        "video_status": "failed",
        "provider": "up",
        "held_usd": 0.4,
        "prompt": "a paper boat",
    }
    (row,) = await operator.usage("provider")
    assert (row["provider"], row["held_usd"], row["cost_usd"]) == ("up", 0.4, 0)


async def test_a_submit_that_cannot_be_repeated_may_have_been_taken_all_the_same(
    opened: Open, fake: FakeOpenAI, tmp_path: Path
) -> None:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "idempotency": "header"}
        async with opened(providers={"up": up}) as operator:
            fake.script("submit", Reset())
            video_id = await create(operator, input_reference=PICTURE)
            await operator.gateway.worker.run_once()
            rmtree(tmp_path / "data" / "media" / "uploads")
            operator.gateway.clock.advance(60)
            await operator.gateway.worker.run_once()
            assert (await operator.gateway.get(video_id))["error"]["code"] == "upstream_outcome_unknown"
            assert (await shown(operator, video_id))["settlement"] == "held"
    assert len(fake.jobs) == 1


async def test_found_by_an_operator_the_job_goes_on(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(operator, fake)
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    path = f"repairs/{repair['id']}"
    unnamed = await operator.ask("POST", path, status=400, action="find")
    assert "Look in its console" in unnamed["error"]["message"]
    wrong = await operator.ask("POST", path, status=400, action="find", upstream_ref="video_99")
    assert "does not know a task 'video_99'" in wrong["error"]["message"]
    await operator.ask("POST", path, action="find", upstream_ref="video_1")
    assert (await operator.ask("GET", "repairs"))["data"] == []
    video = await operator.gateway.finish(video_id)
    assert (video["status"], video["error"], video["cost"]) == ("completed", None, 0.025)
    assert len(fake.submits) == 1
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]


async def test_resubmitted_by_an_operator_it_is_made_once_more(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(operator, fake)
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    await operator.ask("POST", f"repairs/{repair['id']}", action="resubmit")
    assert (await operator.gateway.get(video_id))["status"] == "queued"
    assert (await operator.gateway.finish(video_id))["status"] == "completed"
    assert len(fake.submits) == 2
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    again = await operator.ask("POST", f"repairs/{repair['id']}", status=404, action="resubmit")
    assert "waits for a decision" in again["error"]["message"]


@pytest.mark.parametrize("decision", ["resubmit", "fail", None])
async def test_uploads_are_kept_for_as_long_as_it_may_be_made_once_more(
    operator: Operator, fake: FakeOpenAI, tmp_path: Path, decision: str | None
) -> None:
    video_id = await lost(operator, fake, input_reference=PICTURE)
    uploads = tmp_path / "data" / "media" / "uploads" / video_id
    operator.gateway.clock.advance(7_200)
    await operator.gateway.worker.purge()
    assert list(uploads.glob("*"))
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    if decision is not None:
        await operator.ask("POST", f"repairs/{repair['id']}", action=decision)
    operator.gateway.clock.advance(90_000 if decision is None else 0)
    await operator.gateway.worker.run_once()
    video = await operator.gateway.finish(video_id)
    assert video["status"] == ("completed" if decision == "resubmit" else "failed")
    await operator.gateway.worker.purge()
    assert not list(uploads.glob("*"))


async def test_given_up_by_an_operator_the_money_comes_back(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(operator, fake)
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    await operator.ask("POST", f"repairs/{repair['id']}", action="fail")
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert (await operator.gateway.get(video_id))["status"] == "failed"


async def test_a_cancelled_job_cannot_be_resubmitted(operator: Operator, fake: FakeOpenAI) -> None:
    hang = Hang()
    fake.script("submit", hang)
    video_id = await create(operator)
    running = asyncio.create_task(operator.gateway.worker.run_once())
    await hang.reached.wait()
    await operator.gateway.client.delete(f"/v1/videos/{video_id}")
    hang.release.set()  # a 504 after it was taken
    await running
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    refused = await operator.ask("POST", f"repairs/{repair['id']}", status=409, action="resubmit")
    assert "has ended otherwise" in refused["error"]["message"]


async def test_two_operators_at_once_decide_once(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(operator, fake)
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    answers = await asyncio.gather(
        *(
            operator.client.post(f"/admin/v1/repairs/{repair['id']}", json={"action": action})
            for action in ("fail", "resubmit", "fail", "resubmit")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert len(await operator.ledger(video_id)) in (1, 2)


async def test_what_nobody_found_is_given_back_in_time(operator: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(operator, fake)
    operator.gateway.clock.advance(86_000)
    await operator.gateway.worker.run_once()
    assert await operator.ledger(video_id) == [("reserve", -HELD)]
    operator.gateway.clock.advance(1_000)
    await operator.gateway.worker.run_once()
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert (await operator.ask("GET", "repairs"))["data"] == []


async def test_what_is_given_back_holds_up_nobody(operator: Operator, fake: FakeOpenAI, database_url: str) -> None:
    """Meters are locked in one order, the key's before its project's; over several jobs there would be none."""
    first = await operator.key("first", monthly_budget_usd=10)
    second = await operator.key("second", project=first["project"], monthly_budget_usd=10)
    await operator.ask("PATCH", f"projects/{first['project']}", monthly_budget_usd=10)
    for key in (first, second):
        fake.script("submit", Reset())
        assert (await asked(operator, key)).status_code == 202
        await operator.gateway.worker.run_once()
        operator.gateway.clock.advance(1)
    operator.gateway.clock.advance(90_000)
    lock = "update meters set spent_micros = spent_micros where scope = %s"
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(lock, (second["id"],))
        purging = asyncio.create_task(operator.gateway.worker.purge())
        async with asyncio.timeout(30):
            while len((await operator.ask("GET", "repairs"))["data"]) > 1:  # noqa: ASYNC110  # the first was given back
                await asyncio.sleep(0.05)
        await connection.execute(lock, (f"project:{first['project']}",))
        await connection.commit()
    await purging
    assert (await operator.ask("GET", "repairs"))["data"] == []


@pytest.mark.parametrize(("state", "left"), [("succeeded", ("settle", 0)), ("failed", ("refund", HELD))])
async def test_what_a_worker_of_an_older_release_ended_is_accounted_for(
    operator: Operator, fake: FakeOpenAI, database_url: str, state: str, left: tuple[str, int]
) -> None:
    """It may still be at work after the migration, and knows nothing of money."""
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("update attempts set state = %s, ended_at = now(), lease = null", (state,))
    await operator.gateway.worker.run_once()
    assert await operator.ledger(video_id) == [("reserve", -HELD), left]


async def test_paying_twice_by_choice_holds_twice(opened: Open, fake: FakeOpenAI) -> None:
    models = {"film": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with opened(models=models) as operator:
        fake.script("submit", Reset())
        video_id = await create(operator, model="film")
        await operator.gateway.worker.run_once()
        assert await operator.ledger(video_id) == [("reserve", -HELD), ("hold", -HELD)]
        assert (await operator.gateway.finish(video_id))["status"] == "completed"
        assert (await shown(operator, video_id))["settlement"] == "held", "the first may have been taken"
        (repair,) = (await operator.ask("GET", "repairs"))["data"]
        await operator.ask("POST", f"repairs/{repair['id']}", action="fail")
        assert (await shown(operator, video_id))["settlement"] == "settled"


async def test_paying_twice_by_choice_is_not_paying_thrice(opened: Open, fake: FakeOpenAI) -> None:
    models = {"film": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with opened(models=models) as operator:
        fake.script("submit", *[Reset()] * 5)
        video_id = await create(operator, model="film")
        assert (await operator.gateway.finish(video_id))["error"]["code"] == "upstream_outcome_unknown"
        assert len(fake.jobs) == 2
        assert await operator.ledger(video_id) == [("reserve", -HELD), ("hold", -HELD)]


@pytest.mark.parametrize("by", ["the settings", "the operator"])
async def test_a_task_whose_answer_comes_beside_another_one_is_charged(opened: Open, fake: FakeOpenAI, by: str) -> None:
    slow = SlowYes(fake)
    models = {"film": {"routes": ["up/sora-2"], "on_unknown": "resubmit" if by == "the settings" else "fail"}}
    async with (
        serve(slow) as url,
        opened(
            providers={"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}}, models=models
        ) as operator,
    ):
        fake.polls_until_done = 10_000
        gateway = operator.gateway
        video_id = await create(operator, model="film")
        asleep = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        gateway.clock.advance(gateway.gateway.settings.lease_s + 1)
        async with another_worker(gateway) as other:
            await other.run_once()
            if by == "the operator":
                (repair,) = (await operator.ask("GET", "repairs"))["data"]
                await operator.ask("POST", f"repairs/{repair['id']}", action="resubmit")
            gateway.clock.advance(5)
            await other.run_once()
        assert [a.state for a in await gateway.attempts(video_id)] == ["lost", "running"]
        slow.release.set()
        await asleep
        assert [a.state for a in await gateway.attempts(video_id)] == ["lost", "running"]
        for ref in fake.jobs:
            fake.finish(ref)
        assert (await gateway.finish(video_id))["status"] == "completed"
        await gateway.worker.purge()
        gateway.clock.advance(120)
        await gateway.worker.run_once()
        assert [a.state for a in await gateway.attempts(video_id)] == ["succeeded", "succeeded"]
        assert (await gateway.get(video_id))["cost"] == 0.425, "of a film that nobody fetched, what was asked for"
        assert (await shown(operator, video_id))["settlement"] == "settled"
        await operator.check_sums()


async def test_after_a_restore_nothing_is_paid_for_twice(opened: Open, fake: FakeOpenAI, database_url: str) -> None:
    """The statement of docs/deploy.md, on a database in which a job still waits that was sent after the backup."""
    page = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text("utf-8")
    (statement,) = re.findall(r"```sql\n(update attempts .+?)```", page, re.DOTALL)
    async with opened() as operator:
        video_id = await create(operator)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute(statement.encode())
        operator.gateway.clock.advance(5)
        await operator.gateway.worker.run_once()
        assert fake.submits == []
        assert (await operator.gateway.get(video_id))["error"]["code"] == "upstream_outcome_unknown"
        (repair,) = (await operator.ask("GET", "repairs"))["data"]
        await operator.ask("POST", f"repairs/{repair['id']}", action="resubmit")
        assert (await operator.gateway.finish(video_id))["status"] == "completed"
        assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]


async def test_of_two_tasks_for_one_output_both_are_charged_and_one_is_shown(opened: Open, fake: FakeOpenAI) -> None:
    models = {"film": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with opened(models=models) as operator:
        fake.polls_until_done = 10_000
        fake.script("submit", Reset())
        video_id = await create(operator, model="film", n=2)
        await operator.gateway.worker.run_once()
        operator.gateway.clock.advance(5)  # the second one is sent after a gap
        await operator.gateway.worker.run_once()
        (repair,) = (await operator.ask("GET", "repairs"))["data"]
        attempts = await operator.gateway.attempts(video_id)
        (first,) = (attempt for attempt in attempts if attempt.id == repair["id"])
        (second,) = (a for a in attempts if a.output_index == first.output_index and a is not first)
        (free,) = fake.jobs.keys() - {attempt.upstream_ref for attempt in attempts}
        decision: dict[str, Any] = {"action": "find", "upstream_ref": free}
        refused = await operator.ask("POST", f"repairs/{first.id}", status=409, **decision)
        assert "another task for this output is under way" in refused["error"]["message"]
        fake.finish(str(second.upstream_ref))
        operator.gateway.clock.advance(20)
        await operator.gateway.worker.run_once()
        await operator.ask("POST", f"repairs/{first.id}", **decision)
        for ref in fake.jobs:
            fake.finish(ref)
        video = await operator.gateway.finish(video_id)
        assert (video["status"], video["cost"], "warnings" in video) == ("completed", 0.075, False)
        assert [output["index"] for output in (await shown(operator, video_id))["outputs"]] == [0, 1]


async def test_the_task_of_another_job_is_not_found(operator: Operator, fake: FakeOpenAI) -> None:
    other = await create(operator)
    await operator.gateway.worker.run_once()
    await lost(operator, fake)
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    refused = await operator.ask("POST", f"repairs/{repair['id']}", status=409, action="find", upstream_ref="video_1")
    assert f"the task 'video_1' belongs to the video {other}" in refused["error"]["message"]


async def test_a_row_whose_money_is_not_settled_stays(operator: Operator, fake: FakeOpenAI, database_url: str) -> None:
    video_id = await lost(operator, fake)
    assert (await operator.gateway.client.delete(f"/v1/videos/{video_id}")).json()["deleted"]
    assert (await operator.gateway.client.get(f"/v1/videos/{video_id}")).status_code == 404
    await operator.gateway.worker.run_once()
    (repair,) = (await operator.ask("GET", "repairs"))["data"]
    seen = await shown(operator, repair["video"])
    assert (seen["id"], seen["settlement"], seen["deleted_at"] is None) == (video_id, "held", False)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="is not settled"):
            await connection.execute("delete from videos where id = %s", (video_id,))
        count = "select count(*) from videos where id = %s"
        assert await (await connection.execute(count, (video_id,))).fetchone() == (1,)
        await operator.ask("POST", f"repairs/{repair['id']}", action="fail")
        await operator.gateway.worker.run_once()
        assert await (await connection.execute(count, (video_id,))).fetchone() == (0,)
        await operator.ask("GET", f"videos/{video_id}", status=404)
        for change in ("update ledger set amount_micros = 0", "delete from ledger"):
            with pytest.raises(psycopg.errors.RaiseException, match="only ever added to"):
                await connection.execute(change.encode())
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)], "the ledger outlives the row"


async def test_a_ledger_that_cannot_be_written_after_the_upstream_took_it(
    operator: Operator, fake: FakeOpenAI, database_url: str
) -> None:
    """State and money are one transaction: what could not be booked did not happen, and is tried again."""
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    fake.finish("video_1")
    operator.gateway.clock.advance(20)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("alter table ledger add constraint full_disk check (kind = 'reserve') not valid")
        try:
            await operator.gateway.worker.run_once()
            assert (await operator.gateway.get(video_id))["status"] == "in_progress"
            await operator.check_sums()
        finally:
            await connection.execute("alter table ledger drop constraint full_disk")
    operator.gateway.clock.advance(120)
    video = await operator.gateway.finish(video_id)
    assert (video["status"], video["cost"]) == ("completed", 0.025)
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    assert len(fake.submits) == 1


async def test_two_workers_charge_once(operator: Operator, fake: FakeOpenAI) -> None:
    """The first worker's lease is over while it fetches; both get the file, one of them gets to charge, and only its
    file is kept."""
    video_id = await create(operator)
    await operator.gateway.worker.run_once()
    fake.finish("video_1")
    operator.gateway.clock.advance(20)
    hang = Hang()
    fake.script("content", hang)
    first = asyncio.create_task(operator.gateway.worker.run_once())
    await hang.reached.wait()
    operator.gateway.clock.advance(120)
    async with another_worker(operator.gateway) as second:
        await second.run_once()
    hang.release.set()
    await first
    assert (await operator.gateway.get(video_id))["status"] == "completed"
    assert await operator.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    film = await operator.gateway.client.get(f"/v1/videos/{video_id}/content")
    assert (film.status_code, film.content) == (200, fake.file)


async def test_a_worker_that_wakes_up_late_deletes_only_what_it_brought_itself(
    opened: Open, fake: FakeOpenAI, tmp_path: Path
) -> None:
    """A worker died with its file in the store; of two others, one sleeps until all is over."""
    slow = SlowYes(fake, "/content")
    async with serve(slow) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        async with opened(providers={"up": up}) as operator:
            gateway = operator.gateway
            video_id = await create(operator)
            await gateway.worker.run_once()
            fake.finish("video_1")
            (attempt,) = await gateway.attempts(video_id)
            folder = tmp_path / "data" / "media" / "videos" / video_id / attempt.id
            folder.mkdir(parents=True)
            (folder / "died.mp4").write_bytes(b"of a worker that died")
            gateway.clock.advance(20)
            asleep = asyncio.create_task(gateway.worker.run_once())
            await slow.reached.wait()
            gateway.clock.advance(120)
            async with another_worker(gateway) as second:
                await second.run_once()
            assert (await gateway.get(video_id))["status"] == "completed"
            await gateway.client.get(f"/v1/videos/{video_id}/content?variant=thumbnail")
            left = {path.name for path in folder.iterdir()}
            assert "died.mp4" not in left
            slow.release.set()
            await asleep
            film = await gateway.client.get(f"/v1/videos/{video_id}/content")
            assert (film.status_code, film.content) == (200, fake.file)
            assert {path.name for path in folder.iterdir()} == left


# Balances and budgets


async def asked(operator: Operator, key: dict[str, Any], **fields: Any) -> Any:
    async with operator.user(key) as client:
        body = {"prompt": "a paper boat", "model": "up/sora-2", "seconds": "4", **fields}
        return await client.post("/v1/videos", json=body)


async def videos_of(operator: Operator, key: dict[str, Any]) -> int:
    async with operator.user(key) as client:
        return len((await client.get("/v1/videos")).json()["data"])


@pytest.mark.parametrize("whose", ["key", "project"])
async def test_a_budget_crossed_by_one_micro_is_a_402(operator: Operator, whose: str) -> None:
    short, enough = 0.399999, 0.4
    key = await operator.key(monthly_budget_usd=short if whose == "key" else None)
    path = f"keys/{key['id']}" if whose == "key" else f"projects/{key['project']}"
    if whose == "project":
        await operator.ask("PATCH", path, monthly_budget_usd=short)
    refused = await asked(operator, key)
    assert refused.status_code == 402
    assert refused.json()["error"] == {
        "message": f"this needs $0.4 and $0.399999 is left of the {whose}'s monthly budget of $0.399999; it starts "
        "anew on the first of the month, UTC",
        "type": "insufficient_quota",
        "param": None,
        "code": "budget_exceeded",
    }
    assert await videos_of(operator, key) == 0
    await operator.ask("PATCH", path, monthly_budget_usd=enough)
    assert (await asked(operator, key)).status_code == 202
    assert (await asked(operator, key)).status_code == 402
    assert await videos_of(operator, key) == 1


async def test_a_length_of_next_to_nothing_is_held_for_as_a_second(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=0.4)
    tiny = {"seconds": "0.000001", "n": 4}
    assert (await asked(operator, key, **tiny)).json()["cost_estimate"] == 0.4
    refused = await asked(operator, key, **tiny)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")


async def test_a_prepaid_project_spends_its_balance_and_no_more(operator: Operator) -> None:
    key = await operator.key()
    project = f"projects/{key['project']}"
    await operator.ask("PATCH", project, billing="prepaid")
    refused = await asked(operator, key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_balance")
    assert "this needs $0.4 and the balance is $0; ask" in refused.json()["error"]["message"]
    credited = await operator.ask("POST", f"{project}/credits", status=201, amount_usd=0.5, reference="invoice 7")
    assert credited["available_usd"] == 0.5
    twice = await operator.ask("POST", f"{project}/credits", status=409, amount_usd=0.5, reference="invoice 7")
    assert "was credited to this project before" in twice["error"]["message"]
    made = (await asked(operator, key)).json()["id"]
    async with operator.user(key) as client:
        left = {"object": "balance", "billing_type": "prepaid", "available": {"amount": 0.1, "currency": "usd"}}
        assert (await client.get("/v1/balance")).json() == left
        assert (await asked(operator, key)).status_code == 402
        for _ in range(5):
            await operator.gateway.worker.run_once()
            operator.gateway.clock.advance(20)
        assert (await client.get(f"/v1/videos/{made}")).json()["cost"] == 0.025
        assert (await client.get("/openai/v1/balance")).json()["available"]["amount"] == 0.475
    assert (await asked(operator, key)).status_code == 202


async def test_simultaneous_creates_never_overspend(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=1.3)
    answers = await asyncio.gather(*(asked(operator, key) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [402] * 17
    (row,) = await operator.usage("key")
    assert (row["jobs"], row["held_usd"]) == (3, 1.2)


async def test_two_keys_of_a_project_share_its_balance(operator: Operator) -> None:
    first = await operator.key("first")
    second = await operator.key("second", project=first["project"])
    await operator.ask("PATCH", f"projects/{first['project']}", billing="prepaid")
    await operator.ask("POST", f"projects/{first['project']}/credits", status=201, amount_usd=1)
    answers = await asyncio.gather(*(asked(operator, key) for key in (first, second) * 5))
    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [402] * 8


async def test_a_repeated_create_costs_once_and_answers_even_when_the_money_is_gone(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=0.4, concurrent_jobs=1)
    first = await asked(operator, key, idempotency_key="one")
    again = await asked(operator, key, idempotency_key="one")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    refused = await asked(operator, key, idempotency_key="two")
    assert refused.status_code in (402, 429)
    await operator.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=None, concurrent_jobs=None)
    assert (await asked(operator, key, idempotency_key="two")).status_code == 202, "a refusal does not use the key up"


async def test_what_has_no_price_cannot_be_covered(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=100)
    refused = await asked(operator, key, model="up/other")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_unknown")
    assert "under [prices]" in refused.json()["error"]["message"]
    free = await operator.key()
    assert (await asked(operator, free, model="up/other")).status_code == 202


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
async def test_what_is_missing_to_cover_it_is_said(opened: Open, fields: dict[str, Any], said: str) -> None:
    async with opened(prices={"up/sora-2": {"4k": 0.4, "1080p": 0.2}}) as operator:
        key = await operator.key(monthly_budget_usd=100)
        refused = await asked(operator, key, **fields)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_unknown")
        assert said in refused.json()["error"]["message"]
        for resolution in ("4k", "2160p", "4K"):
            assert (await asked(operator, key, resolution=resolution)).json()["cost_estimate"] == 1.6


async def test_an_uploaded_film_has_no_length_to_cover(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=100)
    async with operator.user(key) as client:
        film = {"video": ("a.mp4", sample_mp4())}
        refused = await client.post("/v1/videos/edits", data={"prompt": "x", "model": "up/sora-2"}, files=film)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "price_unknown")
    assert "edit a video of this gateway" in refused.json()["error"]["message"]


async def test_limited_money_goes_only_where_a_price_is_known(opened: Open) -> None:
    async with opened(models={"film": {"routes": ["spare/sora-2", "up/sora-2"]}}) as operator:
        key = await operator.key(monthly_budget_usd=100)
        video = (await asked(operator, key, model="film")).json()
        assert (video["provider"], video["cost_estimate"]) == ("up", 0.4)


async def test_a_budget_set_later_counts_what_was_spent_this_month(operator: Operator) -> None:
    key = await operator.key()
    assert (await asked(operator, key)).status_code == 202
    await operator.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=0.5)
    await operator.ask("PATCH", f"projects/{key['project']}", billing="prepaid")
    async with operator.user(key) as client:
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == -0.4
    await operator.ask("PATCH", f"projects/{key['project']}", billing="postpaid")
    async with operator.user(key) as client:
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == 0.1
    assert (await asked(operator, key)).status_code == 402


async def test_a_project_that_goes_by_the_id_of_its_key_is_counted_apart(operator: Operator, database_url: str) -> None:
    """Before there were projects, a key with no project named was its own; those were made projects as they were."""
    key = await operator.key()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        project = "insert into projects (id, name, billing, created_at) values (%s, 'old', 'postpaid', now())"
        await connection.execute(project, (key["id"],))
        await connection.execute("update keys set project_id = id where id = %s", (key["id"],))
    await operator.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=0.8)
    await operator.ask("PATCH", f"projects/{key['id']}", monthly_budget_usd=2)
    other = await operator.key(project=key["id"])
    assert (await asked(operator, other)).status_code == 202
    answers = [(await asked(operator, key)).status_code for _ in range(3)]
    assert answers == [202, 202, 402]
    assert (await operator.ask("GET", f"projects/{key['id']}"))["available_usd"] == 0.8


async def test_a_budget_starts_anew_with_the_month_and_settles_in_the_old_one(opened: Open, fake: FakeOpenAI) -> None:
    async with opened(job_deadline_s=100 * 86_400) as operator:
        operator.gateway.clock.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
        key = await operator.key(monthly_budget_usd=0.4)
        assert (await asked(operator, key)).status_code == 202
        assert (await asked(operator, key)).status_code == 402
        operator.gateway.clock.advance(120)
        assert (await asked(operator, key)).status_code == 202, "another month"
        for _ in range(6):
            await operator.gateway.worker.run_once()
            operator.gateway.clock.advance(20)
        assert {row["day"]: row["cost_usd"] for row in await operator.usage("day")} == {
            "2026-11-30": 0.025,
            "2026-12-01": 0.025,
        }
        async with operator.user(key) as client:
            assert (await client.get("/v1/balance")).json()["available"]["amount"] == 0.375


async def test_a_clock_that_jumps_loses_no_money(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=10)
    made = [(await asked(operator, key)).json()["id"]]
    for days in (400, -800, 3_000, -2_600):
        operator.gateway.clock.now += timedelta(days=days)
        made.append((await asked(operator, key)).json()["id"])
        await operator.gateway.worker.run_once()
        await operator.check_sums()
    for _ in range(8):
        operator.gateway.clock.advance(60)
        await operator.gateway.worker.run_once()
    async with operator.user(key) as client:
        found = [(await client.get(f"/v1/videos/{video_id}")).json() for video_id in made]
    assert {video["status"] for video in found} <= {"completed", "failed"}
    assert {(await shown(operator, video_id))["settlement"] for video_id in made} <= {"settled", "refunded"}


DOORS = {
    "openai": ("/v1/videos", {"prompt": "x", "model": "up/sora-2", "seconds": "4"}),
    "lunos": ("/v1/video/generations", {"prompt": "x", "model": "up/sora-2"}),
    "lumen": ("/v1/videos/generations", {"prompt": "x", "model": "up/sora-2", "duration": 4}),
    "luma": ("/luma/generations", {"user_prompt": "x", "model_name": "up/sora-2", "duration": 4}),
    "apilaplas": ("/v2/generate/video/luma-ai/generation", {"prompt": "x", "model": "up/sora-2", "duration": 4}),
}


@pytest.mark.parametrize("door", DOORS)
async def test_402_in_the_words_of_each_door(operator: Operator, door: str) -> None:
    path, body = DOORS[door]
    key = await operator.key(monthly_budget_usd=0)
    async with operator.user(key) as client:
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
        }[door]
    )
    await operator.check_sums()


async def test_a_dry_run_touches_no_money(operator: Operator) -> None:
    key = await operator.key(monthly_budget_usd=0.1)
    async with operator.user(key) as client:
        body = {"prompt": "x", "model": "up/sora-2", "seconds": "4", "n": 2}
        priced = (await client.post("/v1/videos?dryRun=true", json=body)).json()
        assert (priced["total_cost_micros"], priced["components"][0]["quantity"]) == (800_000, 8)
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == 0.1


async def test_a_balance_without_a_limit_has_no_amount(operator: Operator) -> None:
    answer = (await operator.gateway.client.get("/v1/balance")).json()
    assert answer == {"object": "balance", "billing_type": "postpaid", "available": {"amount": None, "currency": "usd"}}


async def test_the_project_of_a_static_key_can_be_limited(operator: Operator) -> None:
    video_id = await create(operator)
    project = (await shown(operator, video_id))["project"]
    assert project.startswith("static_")
    await operator.ask("PATCH", f"projects/{project}", monthly_budget_usd=0.5)
    body = {"prompt": "x", "model": "up/sora-2", "seconds": "4"}
    assert (await operator.gateway.client.post("/v1/videos", json=body)).status_code == 402
    assert (await operator.gateway.bob.post("/v1/videos", json=body)).status_code == 202


# What was used


async def test_the_ledger_is_read_page_by_page(operator: Operator) -> None:
    for _ in range(5):
        await create(operator)
    whole = (await operator.ask("GET", "ledger"))["data"]
    found: list[Any] = []
    page: dict[str, Any] = {"last_id": "~", "has_more": True}
    while page["has_more"]:
        page = await operator.ask("GET", f"ledger?limit=2&after={page['last_id']}")
        found += page["data"]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    assert (len(found), found) == (5, whole)
    nothing = await operator.ask("GET", "ledger?video=video_x")
    assert (nothing["first_id"], nothing["last_id"], nothing["has_more"]) == (None, None, False)


async def test_usage_by_everything(operator: Operator) -> None:
    key = await operator.key("shop")
    async with operator.user(key) as client:
        for app, user in (("catalogue", "u1"), ("catalogue", "u2"), ("=cmd()", None)):
            body = {"prompt": "x", "model": "up/sora-2", "seconds": "4", "user": user}
            response = await client.post("/v1/videos", json=body, headers={"x-app-id": app})
            assert response.status_code == 202
    made = await create(operator, n=2)
    await operator.gateway.finish(made)
    running = await create(operator)
    day = operator.gateway.clock.now.date().isoformat()

    assert await operator.usage("project", project=key["project"]) == [
        {
            "project": key["project"],
            "jobs": 3,
            "outputs": 3,
            "seconds": 0.75,
            "cost_usd": 0.075,
            "held_usd": 0,
            "unpriced_outputs": 0,
        }
    ]
    by_app = {(row["app"], row["user"]): row["jobs"] for row in await operator.usage("app,user")}
    assert by_app == {("catalogue", "u1"): 1, ("catalogue", "u2"): 1, ("=cmd()", None): 1, (None, None): 2}
    (whole,) = await operator.usage("")
    assert (whole["jobs"], whole["outputs"], whole["cost_usd"], whole["held_usd"]) == (5, 5, 0.125, 0.4)
    assert [row["day"] for row in await operator.usage("day,model,provider")] == [day]
    assert await operator.usage("day", since="2020-01-01", until="2020-01-31") == []

    sheet = await operator.client.get("/admin/v1/usage", params={"by": "app,day", "format": "csv"})
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(StringIO(sheet.text)))
    assert {row["app"] for row in rows} == {"catalogue", "'=cmd()", ""}, "no formulas"
    for wrong in (
        {"by": "colour"},
        {"by": "day,day"},
        {"since": "2026-02-30"},
        {"since": "20260201"},
        {"until": "0"},
        {"since": "2026-02-02", "until": "2026-02-01"},
    ):
        refused = await operator.client.get("/admin/v1/usage", params=wrong)
        assert refused.status_code == 400, wrong
    assert (await operator.gateway.finish(running))["status"] == "completed"
