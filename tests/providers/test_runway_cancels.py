"""Cancels at Runway, which deletes tasks, and what they cost."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from contract.stage import NOW, read
from fakes.runway import FakeRunway
from fakes.server import KEY, Answer, serve
from fakes.upstream import ask
from harness import Running, StartGateway

from app import errors
from app.providers.base import Task
from app.providers.runway import Runway

pytestmark = pytest.mark.anyio

GEN = "runway/gen4.5"


@pytest.fixture
def fake() -> FakeRunway:
    return FakeRunway()


@pytest.fixture
async def gateway(fake: FakeRunway, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"runway": {"api_key": KEY, "base_url": url}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.fixture
async def provider(fake: FakeRunway) -> AsyncIterator[Runway]:
    async with serve(fake) as url:
        provider = Runway("runway", Runway.Config(api_key=KEY, base_url=url, timeout_s=5))
        yield provider
        await provider.aclose()


def task(**fields: Any) -> Task:
    return Task("attempt_1", "gen4.5", ask(), read=read, now=NOW, **fields)


async def test_a_waiting_task_is_deleted_and_is_unknown_afterwards(
    gateway: Running, provider: Runway, fake: FakeRunway
) -> None:
    video = await gateway.create(model=GEN)
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.show(ref, "THROTTLED")
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await gateway.worker.run_once()
    assert [call.path for call in fake.deletes] == [f"/v1/tasks/{ref}"]
    assert fake.jobs == {}
    before = len(fake.polls)
    gateway.clock.advance(600)
    await gateway.worker.run_once()
    assert len(fake.polls) == before
    with pytest.raises(errors.UpstreamGone):
        await provider.poll(task(ref=ref))
    assert await provider.cancel(task(ref=ref)) is True


@pytest.mark.parametrize(
    ("amount", "state", "settlement", "cost"),
    [(0, "cancelled", "refunded", None), (12, "failed", "settled", 120_000), (9_000, "failed", "settled", 600_000)],
)
async def test_a_deleted_task_is_charged_what_the_vendor_reports(
    gateway: Running, fake: FakeRunway, amount: int, state: str, settlement: str, cost: int | None
) -> None:
    fake.credits_of_deleted = amount
    video = await gateway.create(model=GEN)
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.show(ref, "PENDING")
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    for _ in range(2):
        await gateway.worker.run_once()
        gateway.clock.advance(600)
    (attempt,) = await gateway.attempts(video["id"])
    assert (attempt.state, attempt.settlement, attempt.cost_micros) == (state, settlement, cost)
    assert len(fake.deletes) == 1


async def test_a_deletion_that_nothing_more_is_known_of_is_not_certain(provider: Runway, fake: FakeRunway) -> None:
    made = task(ref=(await provider.send(task())).ref)
    fake.script("poll", Answer(429, {"error": "Too many requests"}))
    assert await provider.cancel(made) is False


async def test_a_running_task_is_not_deleted_and_is_charged_at_its_end(gateway: Running, fake: FakeRunway) -> None:
    video = await gateway.create(model=GEN)
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.show(ref, "RUNNING")
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await gateway.worker.run_once()
    assert (fake.deletes, list(fake.jobs)) == ([], [ref])
    fake.finish(ref)
    gateway.clock.advance(600)
    await gateway.worker.run_once()
    (attempt,) = await gateway.attempts(video["id"])
    assert (attempt.state, attempt.cost_micros) == ("succeeded", 600_000)
