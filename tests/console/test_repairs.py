"""The operator's repairs: what waits for a decision, each decision, and what is refused."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any

import pytest
from console.conftest import Visitor
from console.desks import HOSTILE, READER, audited, desk, panel, signed_in, words, words_of
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Elsewhere, Reset, serve
from harness import Running, StartGateway
from money import Operator

pytestmark = pytest.mark.anyio

PATH = "/console/repairs"
PRICE = 0.1
HELD = "$0.40"
"""Four seconds at that price."""


@asynccontextmanager
async def repair_desk(
    start_gateway: StartGateway, fake: FakeOpenAI, **settings: Any
) -> AsyncIterator[tuple[Running, Visitor, Operator]]:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        values = {"providers": {"up": up}, "prices": {"up/sora-2": PRICE}, **settings}
        async with desk(start_gateway, **values) as found:
            yield found


async def lost(gateway: Running, admin: Operator, fake: FakeOpenAI, **fields: Any) -> tuple[str, str]:
    """The ids of a video whose submit was taken and never answered, and of its attempt."""
    fake.script("submit", Reset())
    video = await gateway.create(**{"model": "up/sora-2", "seconds": "4", **fields})
    await gateway.worker.run_once()
    found = (await admin.ask("GET", "repairs"))["data"]
    return video["id"], next(one["id"] for one in found if one["video"] == video["id"])


async def without_file(gateway: Running, admin: Operator, fake: FakeOpenAI, **fields: Any) -> tuple[str, str]:
    """The ids of a failed video whose task is finished and names no file, and of its attempt."""
    fake.content_call = False
    video = await gateway.create(**{"model": "up/sora-2", "seconds": "4", **fields})
    await gateway.worker.run_once()
    for ref in fake.jobs:
        fake.finish(ref)
    await gateway.finish(video["id"])
    found = (await admin.ask("GET", "repairs"))["data"]
    return video["id"], next(one["id"] for one in found if one["video"] == video["id"])


async def decided(visitor: Visitor, attempt_id: str, action: str, *, status: int = 303, **fields: str) -> str:
    """Send a decision; returns the place that it leads to, or the page of a refusal."""
    form = {"csrf": await visitor.token(), "action": action, **fields}
    answer = await visitor.post(f"{PATH}/{attempt_id}", form)
    assert answer.status_code == status, answer.text
    return answer.headers["location"] if status == 303 else answer.text


async def test_nothing_waits_at_first(operator: Visitor) -> None:
    assert "Nothing waits for you." in await words(operator, PATH)


async def test_a_lost_submit_waits_with_its_money_and_three_choices(
    start_gateway: StartGateway, fake: FakeOpenAI
) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        first, attempt_id = await lost(gateway, admin, fake, prompt=HOSTILE)
        gateway.clock.advance(3_600)
        _, second = await lost(gateway, admin, fake)
        page = await visitor.get(PATH)
        found = panel(page.text, attempt_id)
    assert page.text.index(attempt_id) < page.text.index(second), "oldest first"
    assert '<span class="badge">2<' in page.text
    text = words_of(found)
    for expected in (
        "Provider up / sora-2",
        "Asked for up/sora-2, 4 s",
        f"Video {first} , failed",
        f"Held {HELD}",
        "Comes back by itself in 23 h",
        "The vendor is asked for it before it is accepted.",
        f"you may pay twice: up to {HELD} each time",
        f"{HELD} go back to the project",
    ):
        assert expected in text, text
    assert found.count("<form") == 3
    assert "<img src=x" not in page.text
    assert "<script>" not in page.text
    assert "{{ 7*7 }}" in page.text


async def test_a_wrong_id_is_refused_in_words_and_the_right_one_goes_on(
    start_gateway: StartGateway, fake: FakeOpenAI
) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await lost(gateway, admin, fake)
        for ref, reason in (
            ("", "Look in its console for a task of about"),
            ("video_99", "up does not know a task 'video_99'"),
            ("x" * 501, "upstream_ref"),
            (HOSTILE, "up does not know a task"),
        ):
            refused = panel(await decided(visitor, attempt_id, "find", status=400, upstream_ref=ref), attempt_id)
            assert reason in unescape(refused), refused
            assert "Nothing has changed." in refused
            assert re.search(r"<details open>\s*<summary><strong>Found", refused), refused
            assert "<img src=x" not in refused
            assert f'name="upstream_ref" value="{ref}"' in unescape(refused)
        await decided(visitor, attempt_id, "find", status=400, upstream_ref="a\x00b")
        assert (await gateway.get(video_id))["status"] == "failed"
        assert await audited(admin, "repair.find") == []
        place = await decided(visitor, attempt_id, "find", upstream_ref=" video_1 ")
        assert place == f"{PATH}?said=repair_find"
        assert "The task was found and goes on." in await words(visitor, place)
        assert await audited(admin, "repair.find") == [("console", "admin")]
        assert (await gateway.finish(video_id))["status"] == "completed"
        assert "Nothing waits for you." in await words(visitor, PATH)
    assert len(fake.submits) == 1


async def test_a_vendor_that_cannot_be_asked_changes_nothing(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await lost(gateway, admin, fake)
        fake.script("poll", Answer(503, {"error": {"message": "overloaded"}}))
        refused = await decided(visitor, attempt_id, "find", status=503, upstream_ref="video_1")
        assert "overloaded" in refused
        assert "Nothing has changed." in refused
        assert (await gateway.get(video_id))["status"] == "failed"
        assert await admin.ledger(video_id) == [("reserve", -400_000)]


async def test_the_task_of_another_video_is_refused(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        other = await gateway.create(model="up/sora-2", seconds="4")
        await gateway.worker.run_once()
        _, attempt_id = await lost(gateway, admin, fake)
        refused = await decided(visitor, attempt_id, "find", status=409, upstream_ref="video_1")
    assert f"belongs to the video {other['id']}" in panel(refused, attempt_id)


async def test_made_again_it_is_submitted_once_more(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await lost(gateway, admin, fake)
        assert await decided(visitor, attempt_id, "resubmit") == f"{PATH}?said=repair_resubmit"
        assert (await gateway.finish(video_id))["status"] == "completed"
        assert await audited(admin, "repair.resubmit") == [("console", "admin")]
        late = await decided(visitor, attempt_id, "resubmit", status=404)
        assert "waits for a decision" in words_of(late)
        assert "Nothing waits for you." in late
    assert len(fake.submits) == 2


async def test_given_up_the_money_comes_back(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await lost(gateway, admin, fake)
        assert await decided(visitor, attempt_id, "fail") == f"{PATH}?said=repair_fail"
        assert await admin.ledger(video_id) == [("reserve", -400_000), ("refund", 400_000)]
        assert await audited(admin, "repair.fail") == [("console", "admin")]


async def test_an_unknown_decision_is_refused(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await lost(gateway, admin, fake)
        for action in ("", "forget", HOSTILE):
            refused = await decided(visitor, attempt_id, action, status=400)
            assert 'class="problem" role="alert">action' in refused
            assert "<img src=x" not in refused
        fetched = await decided(visitor, attempt_id, "fetch", status=409, url="https://cdn.example/a.mp4")
        assert 'class="problem" role="alert">this attempt does not wait for its file' in fetched
        assert await admin.ledger(video_id) == [("reserve", -400_000)]


async def test_the_vendor_is_asked_for_tasks_of_that_minute(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await lost(gateway, admin, fake)
        _, other = await lost(gateway, admin, fake)
        for ref in fake.jobs:
            fake.jobs[ref].raw["created_at"] = int(gateway.clock.now.timestamp())
        fake.job(HOSTILE, {"prompt": "another's", "model": "m", "content": []})
        fake.jobs[HOSTILE].raw["created_at"] = int(gateway.clock.now.timestamp()) + 40
        before = panel((await visitor.get(PATH)).text, attempt_id)
        assert fake.calls["list"] == []
        page = await visitor.get(f"{PATH}?ask={attempt_id}")
        found = panel(page.text, attempt_id)
        untouched = panel(page.text, other)
        assert "Tasks of that minute" not in before
        assert "Tasks of that minute" not in untouched
        assert re.search(r"<details open>\s*<summary><strong>Found", found)
        refs = [unescape(ref) for ref in re.findall(r"<tr><td><code>(.*?)</code>", found)]
        assert sorted(refs[:2]) == ["video_1", "video_2"]
        assert refs[2:] == [HOSTILE], "the farthest"
        assert "<img src=x" not in found
        await decided(visitor, attempt_id, "find", upstream_ref="video_1")
        assert (await gateway.finish(video_id))["status"] == "completed"
        fake.jobs.clear()
        page = await visitor.get(f"{PATH}?ask={other}")
        assert "up lists no task of that minute" in words_of(panel(page.text, other))
        fake.script("list", *[Answer(500)] * 5)
        page = await visitor.get(f"{PATH}?ask={other}")
        assert "up has no list of tasks that reaches back" in words_of(panel(page.text, other))


async def test_a_file_that_was_found_is_fetched_for_nothing(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    host = Elsewhere()
    async with serve(host) as url, repair_desk(start_gateway, fake) as (gateway, visitor, admin):
        video_id, attempt_id = await without_file(gateway, admin, fake, prompt=HOSTILE)
        page = await visitor.get(PATH)
        assert "Finished without a file" in page.text
        assert "Nothing waits for you." not in page.text
        assert "<img src=x" not in page.text
        assert "no_output" in panel(page.text, attempt_id)
        for address, reason, status in (
            ("", "url is required with fetch", 400),
            ("ftp://cdn.example/a.mp4", "expected an http(s) URL", 400),
            ("http://10.1.2.3/a.mp4", "the address is private", 400),
        ):
            refused = panel(await decided(visitor, attempt_id, "fetch", status=status, url=address), attempt_id)
            assert reason in unescape(refused)
            assert "Nothing has changed." in refused
        assert await decided(visitor, attempt_id, "fetch", url=f"{url}/clip.mp4") == f"{PATH}?said=repair_fetch"
        assert await audited(admin, "repair.fetch") == [("console", "admin")]
        video = await gateway.finish(video_id)
        assert (video["status"], video["cost"]) == ("completed", 0)
        again = await decided(visitor, attempt_id, "fetch", status=409, url=f"{url}/clip.mp4")
        assert "another operator has just decided on it" in again


async def test_it_is_the_operators_page(alice: Visitor) -> None:
    assert (await alice.get(PATH)).status_code == 403
    token = await alice.token()
    assert (await alice.post(f"{PATH}/att_1", {"csrf": token, "action": "fail"})).status_code == 403


async def test_a_key_that_may_only_read_decides_nothing(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with repair_desk(start_gateway, fake) as (gateway, _, admin), signed_in(gateway, READER) as reader:
        video_id, attempt_id = await lost(gateway, admin, fake)
        found = panel((await reader.get(PATH)).text, attempt_id)
        assert f'action="{PATH}/' not in found
        refused = await decided(reader, attempt_id, "fail", status=403)
        assert "may only read" in refused
        assert await admin.ledger(video_id) == [("reserve", -400_000)]


async def test_an_id_of_nothing_is_refused(operator: Visitor) -> None:
    for name in ("nothing", "att_" + "0" * 26, "%00", "x" * 2_000):
        for action in ("find", "resubmit", "fail"):
            await decided(operator, name, action, status=404, upstream_ref="a")
