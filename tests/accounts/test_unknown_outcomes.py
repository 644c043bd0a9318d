"""Submits with an unknown outcome: the hold stays until an operator, the upstream or time decides."""

import asyncio
from base64 import b64encode
from pathlib import Path
from shutil import rmtree
from typing import Any

import psycopg
import pytest
from accounts.billing import COST, HELD, Open, asked, create, shown
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Hang, Reset, SlowYes, serve
from harness import another_worker
from money import Operator

from app.jobs.restored import mark_restored

pytestmark = pytest.mark.anyio


PICTURE = f"data:image/png;base64,{b64encode(bytes([0x89]) + b'PNG' + bytes(100)).decode()}"


async def lost(admin: Operator, fake: FakeOpenAI, **fields: Any) -> str:
    """A job whose submit was taken and never answered."""
    fake.script("submit", Reset())
    video_id = await create(admin, **fields)
    await admin.gateway.worker.run_once()
    assert (await admin.gateway.get(video_id))["error"]["code"] == "upstream_outcome_unknown"
    return video_id


async def test_an_unknown_outcome_keeps_its_hold_and_waits_for_a_decision(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(admin, fake)
    assert await admin.ledger(video_id) == [("reserve", -HELD)]
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    assert repair["actions"] == ["find", "resubmit", "fail"]
    assert {name: repair[name] for name in ("video", "video_status", "provider", "held_usd", "prompt")} == {
        "video": video_id,
        "video_status": "failed",
        "provider": "up",
        "held_usd": 0.4,
        "prompt": "a paper boat",
    }
    (row,) = await admin.usage("provider")
    assert (row["provider"], row["held_usd"], row["cost_usd"]) == ("up", 0.4, 0)


async def test_a_submit_that_cannot_be_repeated_may_have_been_taken_all_the_same(
    opened: Open, fake: FakeOpenAI, tmp_path: Path
) -> None:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "idempotency": "header"}
        async with opened(providers={"up": up}) as admin:
            fake.script("submit", Reset())
            video_id = await create(admin, input_reference=PICTURE)
            await admin.gateway.worker.run_once()
            rmtree(tmp_path / "data" / "media" / "uploads")
            admin.gateway.clock.advance(60)
            await admin.gateway.worker.run_once()
            assert (await admin.gateway.get(video_id))["error"]["code"] == "upstream_outcome_unknown"
            assert (await shown(admin, video_id))["settlement"] == "held"
    assert len(fake.jobs) == 1


async def test_found_by_an_operator_the_job_goes_on(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(admin, fake)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    path = f"repairs/{repair['id']}"
    unnamed = await admin.ask("POST", path, status=400, action="find")
    assert "Look in its console" in unnamed["error"]["message"]
    wrong = await admin.ask("POST", path, status=400, action="find", upstream_ref="video_99")
    assert "does not know a task 'video_99'" in wrong["error"]["message"]
    await admin.ask("POST", path, action="find", upstream_ref="video_1")
    assert (await admin.ask("GET", "repairs"))["data"] == []
    video = await admin.gateway.finish(video_id)
    assert (video["status"], video["error"], video["cost"]) == ("completed", None, 0.025)
    assert len(fake.submits) == 1
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]


async def test_resubmitted_by_an_operator_it_is_made_once_more(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(admin, fake)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    await admin.ask("POST", f"repairs/{repair['id']}", action="resubmit")
    assert (await admin.gateway.get(video_id))["status"] == "queued"
    assert (await admin.gateway.finish(video_id))["status"] == "completed"
    assert len(fake.submits) == 2
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    again = await admin.ask("POST", f"repairs/{repair['id']}", status=404, action="resubmit")
    assert "waits for a decision" in again["error"]["message"]


@pytest.mark.parametrize("decision", ["resubmit", "fail", None])
async def test_uploads_are_kept_for_as_long_as_it_may_be_made_once_more(
    admin: Operator, fake: FakeOpenAI, tmp_path: Path, decision: str | None
) -> None:
    video_id = await lost(admin, fake, input_reference=PICTURE)
    uploads = tmp_path / "data" / "media" / "uploads" / video_id
    admin.gateway.clock.advance(7_200)
    await admin.gateway.worker.purge()
    assert list(uploads.glob("*"))
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    if decision is not None:
        await admin.ask("POST", f"repairs/{repair['id']}", action=decision)
    admin.gateway.clock.advance(90_000 if decision is None else 0)
    await admin.gateway.worker.run_once()
    video = await admin.gateway.finish(video_id)
    assert video["status"] == ("completed" if decision == "resubmit" else "failed")
    await admin.gateway.worker.purge()
    assert not list(uploads.glob("*"))


async def test_given_up_by_an_operator_the_money_comes_back(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(admin, fake)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    await admin.ask("POST", f"repairs/{repair['id']}", action="fail")
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert (await admin.gateway.get(video_id))["status"] == "failed"


async def test_a_cancelled_job_cannot_be_resubmitted(admin: Operator, fake: FakeOpenAI) -> None:
    hang = Hang()
    fake.script("submit", hang)
    video_id = await create(admin)
    running = asyncio.create_task(admin.gateway.worker.run_once())
    await hang.reached.wait()
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    hang.release.set()  # a 504 after it was taken
    await running
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    refused = await admin.ask("POST", f"repairs/{repair['id']}", status=409, action="resubmit")
    assert "cannot run again" in refused["error"]["message"]


async def test_two_operators_at_once_decide_once(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(admin, fake)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    answers = await asyncio.gather(
        *(
            admin.client.post(f"/admin/v1/repairs/{repair['id']}", json={"action": action})
            for action in ("fail", "resubmit", "fail", "resubmit")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert len(await admin.ledger(video_id)) in (1, 2)


async def test_an_unresolved_hold_is_given_back_in_time(admin: Operator, fake: FakeOpenAI) -> None:
    video_id = await lost(admin, fake)
    admin.gateway.clock.advance(86_000)
    await admin.gateway.worker.run_once()
    assert await admin.ledger(video_id) == [("reserve", -HELD)]
    admin.gateway.clock.advance(1_000)
    await admin.gateway.worker.run_once()
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)]
    assert (await admin.ask("GET", "repairs"))["data"] == []


async def test_giving_back_holds_does_not_deadlock_with_other_work(
    admin: Operator, fake: FakeOpenAI, database_url: str
) -> None:
    """Meters are locked in one order, the key's before its project's; over several jobs there would be none."""
    first = await admin.key("first", monthly_budget_usd=10)
    second = await admin.key("second", project=first["project"], monthly_budget_usd=10)
    await admin.ask("PATCH", f"projects/{first['project']}", monthly_budget_usd=10)
    for key in (first, second):
        fake.script("submit", Reset())
        assert (await asked(admin, key)).status_code == 202
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(1)
    admin.gateway.clock.advance(90_000)
    lock = "update meters set spent_micros = spent_micros where scope = %s"
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(lock, (second["id"],))
        purging = asyncio.create_task(admin.gateway.worker.purge())
        async with asyncio.timeout(30):
            while len((await admin.ask("GET", "repairs"))["data"]) > 1:  # noqa: ASYNC110  # the first was given back
                await asyncio.sleep(0.05)
        await connection.execute(lock, (f"project:{first['project']}",))
        await connection.commit()
    await purging
    assert (await admin.ask("GET", "repairs"))["data"] == []


@pytest.mark.parametrize(("state", "left"), [("succeeded", ("settle", 0)), ("failed", ("refund", HELD))])
async def test_what_a_worker_of_an_older_release_ended_is_accounted_for(
    admin: Operator, fake: FakeOpenAI, database_url: str, state: str, left: tuple[str, int]
) -> None:
    """It may still be at work after the migration, and knows nothing of money."""
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("update attempts set state = %s, ended_at = now(), lease = null", (state,))
    await admin.gateway.worker.purge()
    assert await admin.ledger(video_id) == [("reserve", -HELD), left]


async def test_paying_twice_by_choice_holds_twice(opened: Open, fake: FakeOpenAI) -> None:
    models = {"clip": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with opened(models=models) as admin:
        fake.script("submit", Reset())
        video_id = await create(admin, model="clip")
        await admin.gateway.worker.run_once()
        assert await admin.ledger(video_id) == [("reserve", -HELD), ("hold", -HELD)]
        assert (await admin.gateway.finish(video_id))["status"] == "completed"
        assert (await shown(admin, video_id))["settlement"] == "held", "the first may have been taken"
        (repair,) = (await admin.ask("GET", "repairs"))["data"]
        await admin.ask("POST", f"repairs/{repair['id']}", action="fail")
        assert (await shown(admin, video_id))["settlement"] == "settled"


async def test_paying_twice_by_choice_is_not_paying_thrice(opened: Open, fake: FakeOpenAI) -> None:
    models = {"clip": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with opened(models=models) as admin:
        fake.script("submit", *[Reset()] * 5)
        video_id = await create(admin, model="clip")
        assert (await admin.gateway.finish(video_id))["error"]["code"] == "upstream_outcome_unknown"
        assert len(fake.jobs) == 2
        assert await admin.ledger(video_id) == [("reserve", -HELD), ("hold", -HELD)]


@pytest.mark.parametrize("by", ["the settings", "the operator"])
async def test_a_task_whose_answer_comes_beside_another_one_is_charged(opened: Open, fake: FakeOpenAI, by: str) -> None:
    slow = SlowYes(fake)
    models = {"clip": {"routes": ["up/sora-2"], "on_unknown": "resubmit" if by == "the settings" else "fail"}}
    async with (
        serve(slow) as url,
        opened(providers={"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}}, models=models) as admin,
    ):
        fake.polls_until_done = 10_000
        gateway = admin.gateway
        video_id = await create(admin, model="clip")
        asleep = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        gateway.clock.advance(gateway.gateway.settings.lease_s + 1)
        async with another_worker(gateway) as other:
            await other.run_once()
            if by == "the operator":
                (repair,) = (await admin.ask("GET", "repairs"))["data"]
                await admin.ask("POST", f"repairs/{repair['id']}", action="resubmit")
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
        assert (await gateway.get(video_id))["cost"] == 0.425, "the requested length, since the file was never fetched"
        assert (await shown(admin, video_id))["settlement"] == "settled"
        await admin.check_sums()


async def test_after_a_restore_nothing_is_paid_for_twice(opened: Open, fake: FakeOpenAI) -> None:
    """In the database a job still waits that was sent after the backup."""
    async with opened() as admin:
        video_id = await create(admin)
        async with admin.gateway.gateway.db.transaction() as session:
            await mark_restored(session, backup_at=None, now=admin.gateway.clock())
        admin.gateway.clock.advance(5)
        await admin.gateway.worker.run_once()
        assert fake.submits == []
        assert (await admin.gateway.get(video_id))["error"]["code"] == "upstream_outcome_unknown"
        (repair,) = (await admin.ask("GET", "repairs"))["data"]
        await admin.ask("POST", f"repairs/{repair['id']}", action="resubmit")
        assert (await admin.gateway.finish(video_id))["status"] == "completed"
        assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]


async def test_of_two_tasks_for_one_output_both_are_charged_and_one_is_shown(opened: Open, fake: FakeOpenAI) -> None:
    models = {"clip": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with opened(models=models) as admin:
        fake.polls_until_done = 10_000
        fake.script("submit", Reset())
        video_id = await create(admin, model="clip", n=2)
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(5)  # the second one is sent after a gap
        await admin.gateway.worker.run_once()
        (repair,) = (await admin.ask("GET", "repairs"))["data"]
        attempts = await admin.gateway.attempts(video_id)
        (first,) = (attempt for attempt in attempts if attempt.id == repair["id"])
        (second,) = (a for a in attempts if a.output_index == first.output_index and a is not first)
        (free,) = fake.jobs.keys() - {attempt.upstream_ref for attempt in attempts}
        decision: dict[str, Any] = {"action": "find", "upstream_ref": free}
        refused = await admin.ask("POST", f"repairs/{first.id}", status=409, **decision)
        assert "another attempt is making this output" in refused["error"]["message"]
        fake.finish(str(second.upstream_ref))
        admin.gateway.clock.advance(20)
        await admin.gateway.worker.run_once()
        await admin.ask("POST", f"repairs/{first.id}", **decision)
        for ref in fake.jobs:
            fake.finish(ref)
        video = await admin.gateway.finish(video_id)
        assert (video["status"], video["cost"], "warnings" in video) == ("completed", 0.075, False)
        assert [output["index"] for output in (await shown(admin, video_id))["outputs"]] == [0, 1]


async def test_the_task_of_another_job_is_not_found(admin: Operator, fake: FakeOpenAI) -> None:
    other = await create(admin)
    await admin.gateway.worker.run_once()
    await lost(admin, fake)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    refused = await admin.ask("POST", f"repairs/{repair['id']}", status=409, action="find", upstream_ref="video_1")
    assert f"the task 'video_1' belongs to the video {other}" in refused["error"]["message"]


async def test_a_row_whose_money_is_not_settled_stays(admin: Operator, fake: FakeOpenAI, database_url: str) -> None:
    video_id = await lost(admin, fake)
    assert (await admin.gateway.client.delete(f"/v1/videos/{video_id}")).json()["deleted"]
    assert (await admin.gateway.client.get(f"/v1/videos/{video_id}")).status_code == 404
    await admin.gateway.worker.run_once()
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    seen = await shown(admin, repair["video"])
    assert (seen["id"], seen["settlement"], seen["deleted_at"] is None) == (video_id, "held", False)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="is not settled"):
            await connection.execute("delete from videos where id = %s", (video_id,))
        count = "select count(*) from videos where id = %s"
        assert await (await connection.execute(count, (video_id,))).fetchone() == (1,)
        await admin.ask("POST", f"repairs/{repair['id']}", action="fail")
        admin.gateway.clock.advance(3_700)  # so long its row is kept for streams that were interrupted
        await admin.gateway.worker.run_once()
        assert await (await connection.execute(count, (video_id,))).fetchone() == (0,)
        await admin.ask("GET", f"videos/{video_id}", status=404)
        for change in ("update ledger set amount_micros = 0", "delete from ledger"):
            with pytest.raises(psycopg.errors.RaiseException, match="only ever added to"):
                await connection.execute(change.encode())
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("refund", HELD)], "the ledger outlives the row"


async def test_a_ledger_that_cannot_be_written_after_the_upstream_took_it(
    admin: Operator, fake: FakeOpenAI, database_url: str
) -> None:
    """State and money are one transaction: what could not be booked did not happen, and is tried again."""
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    fake.finish("video_1")
    admin.gateway.clock.advance(20)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("alter table ledger add constraint full_disk check (kind = 'reserve') not valid")
        try:
            await admin.gateway.worker.run_once()
            assert (await admin.gateway.get(video_id))["status"] == "in_progress"
            await admin.check_sums()
        finally:
            await connection.execute("alter table ledger drop constraint full_disk")
    admin.gateway.clock.advance(120)
    video = await admin.gateway.finish(video_id)
    assert (video["status"], video["cost"]) == ("completed", 0.025)
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    assert len(fake.submits) == 1


async def test_two_workers_charge_once(admin: Operator, fake: FakeOpenAI) -> None:
    """The first worker's lease is over while it fetches; both get the file, one of them gets to charge, and only its
    file is kept."""
    video_id = await create(admin)
    await admin.gateway.worker.run_once()
    fake.finish("video_1")
    admin.gateway.clock.advance(20)
    hang = Hang()
    fake.script("content", hang)
    first = asyncio.create_task(admin.gateway.worker.run_once())
    await hang.reached.wait()
    admin.gateway.clock.advance(120)
    async with another_worker(admin.gateway) as second:
        await second.run_once()
    hang.release.set()
    await first
    assert (await admin.gateway.get(video_id))["status"] == "completed"
    assert await admin.ledger(video_id) == [("reserve", -HELD), ("settle", HELD - COST)]
    response = await admin.gateway.client.get(f"/v1/videos/{video_id}/content")
    assert (response.status_code, response.content) == (200, fake.file)


async def test_a_worker_that_wakes_up_late_deletes_only_what_it_brought_itself(
    opened: Open, fake: FakeOpenAI, tmp_path: Path
) -> None:
    """A worker died with its file in the store; of two others, one sleeps until all is over."""
    slow = SlowYes(fake, "/content")
    async with serve(slow) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        async with opened(providers={"up": up}) as admin:
            gateway = admin.gateway
            video_id = await create(admin)
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
            response = await gateway.client.get(f"/v1/videos/{video_id}/content")
            assert (response.status_code, response.content) == (200, fake.file)
            assert {path.name for path in folder.iterdir()} == left
