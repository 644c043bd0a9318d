"""Jobs of a restored database: what may have been submitted since the backup is not paid for a second time."""

from datetime import timedelta
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from harness import Running, StartGateway
from upstreams import Upstreams

from app.jobs.restored import mark_restored

pytestmark = pytest.mark.anyio

BEFORE = timedelta(minutes=2)
"""Age of the backup."""
SETTINGS = {"retry_failed": True, "on_unknown": "resubmit"}


async def mark(gateway: Running) -> int:
    async with gateway.gateway.db.transaction() as session:
        return await mark_restored(session, backup_at=gateway.clock() - BEFORE, now=gateway.clock())


def aliases(*routes: str) -> dict[str, Any]:
    return {"clip": {"routes": list(routes), **SETTINGS}}


async def test_a_waiting_job_is_sent_again_only_where_that_makes_no_second_task(
    two: Upstreams, start_gateway: StartGateway
) -> None:
    """The first upstream takes our id as the key of a task, the second does not."""
    providers = two.providers()
    providers["one"]["idempotency"] = "header"
    async with start_gateway(providers=providers) as gateway:
        again = (await gateway.create(model="one/sora-2"))["id"]
        unknown = (await gateway.create(model="two/sora-2"))["id"]
        gateway.clock.advance(3_000)
        assert await mark(gateway) == 2
        (attempt,) = await gateway.attempts(unknown)
        assert attempt.submitted_at == gateway.clock() - BEFORE, "not sent at the time of the backup, so later"
        await gateway.worker.run_once()
        assert len(two.fakes["one"].submits) == 1
        assert two.fakes["two"].submits == []
        assert (await gateway.finish(again))["status"] == "completed"
        assert (await gateway.get(unknown))["error"]["code"] == "upstream_outcome_unknown"


async def test_a_job_with_several_routes_may_have_been_made_at_any_of_them(
    two: Upstreams, start_gateway: StartGateway
) -> None:
    """So it is not even sent again where that makes no second task, nor once more because its alias says so."""
    models = aliases("one/sora-2", "two/sora-2")
    async with start_gateway(providers=two.providers(idempotency="header"), models=models) as gateway:
        video_id = (await gateway.create(model="clip"))["id"]
        await mark(gateway)
        assert (await gateway.finish(video_id))["error"]["code"] == "upstream_outcome_unknown"
        assert [fake.submits for fake in two.fakes.values()] == [[], []]
        assert len(await gateway.attempts(video_id)) == 1


@pytest.mark.parametrize("restored", [False, True])
async def test_a_task_that_failed_does_not_go_on_at_the_next_route_after_a_restore(
    two: Upstreams, start_gateway: StartGateway, restored: bool
) -> None:
    models = aliases("one/sora-2", "two/sora-2")
    async with start_gateway(providers=two.providers(), models=models) as gateway:
        video_id = (await gateway.create(model="clip"))["id"]
        await gateway.worker.run_once()
        if restored:
            assert await mark(gateway) == 0
        two.fakes["one"].fail("video_1", "server_error", "boom")
        assert (await gateway.finish(video_id))["status"] == ("failed" if restored else "completed")
        assert len(two.fakes["two"].submits) == 1 - restored


async def test_a_server_whose_clock_is_behind_does_not_take_old_jobs_for_new_ones(
    two: Upstreams, start_gateway: StartGateway
) -> None:
    models = aliases("one/sora-2", "two/sora-2")
    async with start_gateway(providers=two.providers(), models=models) as gateway:
        video_id = (await gateway.create(model="clip"))["id"]
        await gateway.worker.run_once()
        async with gateway.gateway.db.transaction() as session:
            await mark_restored(session, backup_at=None, now=gateway.clock() - BEFORE)
        two.fakes["one"].fail("video_1", "server_error", "boom")
        assert (await gateway.finish(video_id))["status"] == "failed"
        assert two.fakes["two"].submits == []


async def test_jobs_created_after_the_restore_are_not_concerned(two: Upstreams, start_gateway: StartGateway) -> None:
    models = aliases("one/sora-2", "two/sora-2")
    async with start_gateway(providers=two.providers(), models=models) as gateway:
        await mark(gateway)
        gateway.clock.advance(1)
        video_id = (await gateway.create(model="clip"))["id"]
        await gateway.worker.run_once()
        two.fakes["one"].fail("video_1", "server_error", "boom")
        assert (await gateway.finish(video_id))["status"] == "completed"


async def test_a_running_task_is_polled_and_stored(up: Running, fake: FakeOpenAI) -> None:
    """However old the backup is."""
    video_id = (await up.create(model="up/sora-2"))["id"]
    await up.worker.run_once()
    up.clock.advance(86_400)
    assert await mark(up) == 0
    assert (await up.finish(video_id))["status"] == "completed"
    assert len(fake.submits) == 1
