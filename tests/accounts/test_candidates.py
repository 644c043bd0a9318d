"""Candidates of lost submits, from the lists of vendors: shown to the operator, never taken over."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from accounts.billing import Open
from fakes.ark import FakeArk
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Fake, Reset, serve
from money import Operator

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ark() -> FakeArk:
    return FakeArk()


@pytest.fixture
async def admin(opened: Open, fake: FakeOpenAI, ark: FakeArk) -> AsyncIterator[Operator]:
    async with serve(fake) as url, serve(ark) as ark_url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        providers = {"up": up, "twin": up, "ark": {"base_url": f"{ark_url}/api/v3", "api_key": KEY}}
        async with opened(providers=providers, prices={}) as admin:
            yield admin


async def lost(admin: Operator, fake: Fake, model: str) -> None:
    fake.script("submit", Reset())
    await admin.gateway.create(model=model)
    await admin.gateway.worker.run_once()


def made(fake: Fake, admin: Operator, ref: str, *, after_s: float = 0) -> str:
    """A task that other software made at the vendor."""
    fake.job(ref, {"prompt": "another's", "model": "m", "content": []})
    at(fake, admin, ref, after_s)
    return ref


def at(fake: Fake, admin: Operator, ref: str, after_s: float) -> None:
    fake.jobs[ref].raw["created_at"] = int(admin.gateway.clock.now.timestamp() + after_s)


async def candidates(admin: Operator) -> Any:
    found = await admin.client.get("/admin/v1/repairs", params={"candidates": "true"})
    return [row["candidates"] and [task["upstream_ref"] for task in row["candidates"]] for row in found.json()["data"]]


@pytest.mark.parametrize("name", ["up/sora-2", "ark/dreamina-seedance-2-0-260128"])
async def test_tasks_of_that_minute_that_no_job_has_are_candidates(
    admin: Operator, fake: FakeOpenAI, ark: FakeArk, name: str
) -> None:
    upstream: Fake = fake if name.startswith("up") else ark
    await admin.gateway.create(model=name)
    await admin.gateway.worker.run_once()
    (ours,) = upstream.jobs
    at(upstream, admin, ours, 0)
    await lost(admin, upstream, name)
    (its,) = upstream.jobs.keys() - {ours}
    at(upstream, admin, its, 5)
    others = [made(upstream, admin, "other-1", after_s=-40), made(upstream, admin, "other-2", after_s=58)]
    made(upstream, admin, "early", after_s=-70)
    made(upstream, admin, "late", after_s=70)
    assert (await admin.ask("GET", "repairs"))["data"][0]["candidates"] is None
    assert await candidates(admin) == [[its, *others]]
    (row,) = (await admin.ask("GET", "repairs"))["data"]
    await admin.ask("POST", f"repairs/{row['id']}", action="find", upstream_ref=its)
    assert await candidates(admin) == []


async def test_the_list_is_read_back_to_the_oldest_submit(admin: Operator, fake: FakeOpenAI) -> None:
    fake.most_listed = 2
    await lost(admin, fake, "up/sora-2")
    (its,) = fake.jobs
    at(fake, admin, its, 0)
    for number in range(5):
        made(fake, admin, f"newer-{number}", after_s=600)
    assert await candidates(admin) == [[its]]
    assert [call.query.partition("after=")[2] for call in fake.calls["list"]] == ["", "newer-3", "newer-1"]


async def test_a_list_that_is_not_read_back_to_the_submit_leaves_the_candidates_unknown(
    admin: Operator, fake: FakeOpenAI
) -> None:
    """An empty list would say that the vendor has no such task, and invite a second one."""
    fake.most_listed = 2
    await lost(admin, fake, "up/sora-2")
    (its,) = fake.jobs
    at(fake, admin, its, 0)
    for number in range(12):
        made(fake, admin, f"newer-{number}", after_s=600)
    assert await candidates(admin) == [None]
    assert len(fake.calls["list"]) == 5


async def test_the_task_of_another_provider_with_the_same_account_is_none(admin: Operator, fake: FakeOpenAI) -> None:
    await admin.gateway.create(model="twin/sora-2")
    await admin.gateway.worker.run_once()
    (ours,) = fake.jobs
    at(fake, admin, ours, 0)
    await lost(admin, fake, "up/sora-2")
    (its,) = fake.jobs.keys() - {ours}
    at(fake, admin, its, 0)
    assert await candidates(admin) == [[its]]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {"error": {"message": "no such call"}}),
        Answer(500),
        Answer(200, "<html>"),
        Reset(),
    ],
)
async def test_a_list_that_cannot_be_read_leaves_the_candidates_unknown(
    admin: Operator, fake: FakeOpenAI, answer: Any
) -> None:
    await lost(admin, fake, "up/sora-2")
    fake.script("list", answer)
    assert await candidates(admin) == [None]


async def test_rows_that_are_no_tasks_are_left_out(admin: Operator, fake: FakeOpenAI) -> None:
    await lost(admin, fake, "up/sora-2")
    now = int(admin.gateway.clock.now.timestamp())
    rows = [None, {}, {"id": "x"}, {"id": "x", "created_at": 1e300}, {"id": "x", "created_at": "now"}, {"id": 7}]
    rows.append({"id": "whole", "created_at": now, "model": "a\ud800", "status": {}})
    fake.script("list", Answer(200, {"data": rows, "has_more": True}))
    assert await candidates(admin) == [["whole"]]
    assert len(fake.calls["list"]) == 2
