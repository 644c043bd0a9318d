"""Submits to Kling whose answer was lost: looked up by our id, also for a job that was cancelled meanwhile."""

from collections.abc import AsyncIterator

import pytest
from fakes.kling import FakeKling
from fakes.server import KEY, Answer, Reset, serve
from harness import Running, StartGateway

from app.jobs.breaker import THRESHOLD
from app.providers.kling.adapter import LOOK_AGAIN_S, LOOKED_FOR_S

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake() -> FakeKling:
    return FakeKling()


@pytest.fixture
async def gateway(start_gateway: StartGateway, fake: FakeKling) -> AsyncIterator[Running]:
    async with serve(fake) as url, start_gateway(providers={"kling": {"api_key": KEY, "base_url": url}}) as gateway:
        yield gateway


async def worked(gateway: Running, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        gateway.clock.advance(seconds)
        await gateway.worker.run_once()


async def test_a_cancelled_job_in_doubt_is_looked_up_and_charged_for_what_runs(
    gateway: Running, fake: FakeKling
) -> None:
    fake.script("submit", Reset())
    video = await gateway.create(model="kling/kling-3.0")
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await worked(gateway, 2 * LOOK_AGAIN_S, times=30)
    (attempt,) = await gateway.attempts(video["id"])
    assert (attempt.upstream_ref, len(fake.submits)) == (ref, 1)
    assert attempt.settlement == "settled"
    assert attempt.cost_micros


async def test_a_cancelled_job_in_doubt_that_is_never_listed_ends(gateway: Running, fake: FakeKling) -> None:
    fake.script("submit", Reset(accepted=False))
    video = await gateway.create(model="kling/kling-3.0")
    await gateway.worker.run_once()
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await worked(gateway, 2 * LOOK_AGAIN_S, times=int(LOOKED_FOR_S / LOOK_AGAIN_S))
    (attempt,) = await gateway.attempts(video["id"])
    assert (attempt.state, len(fake.submits)) == ("lost", 1)
    polls = len(fake.polls)
    await worked(gateway, 2 * LOOK_AGAIN_S, times=5)
    assert len(fake.polls) == polls


async def test_look_ups_do_not_close_the_circuit_of_lost_submits(gateway: Running, fake: FakeKling) -> None:
    fake.script("submit", *[Answer(500)] * (2 * THRESHOLD))
    for _ in range(THRESHOLD):
        await gateway.create(model="kling/kling-3.0")
        await worked(gateway, LOOK_AGAIN_S)
    assert len(fake.submits) == THRESHOLD
    assert len(fake.polls) > THRESHOLD, "looked up in between, which works"
    await gateway.create(model="kling/kling-3.0")
    await worked(gateway, 1, times=3)
    assert len(fake.submits) == THRESHOLD, "the circuit is open"
