"""Finished tasks whose file could not be had: refunded, listed with the upstream's answer, fetched by an operator."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from accounts.billing import HELD, Open, create, shown
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Elsewhere, Hang, Reset, serve
from harness import another_worker
from money import Operator
from names import resolve_names

pytestmark = pytest.mark.anyio

LEFT = [("reserve", -HELD), ("refund", HELD)]


@pytest.fixture
async def elsewhere() -> AsyncIterator[tuple[Elsewhere, str]]:
    host = Elsewhere()
    async with serve(host) as url:
        yield host, f"{url}/clip.mp4"


async def without_file(admin: Operator, fake: FakeOpenAI, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A failed job whose task is finished and names no file, and its repair."""
    fake.content_call = False
    video_id = await create(admin, **fields)
    await admin.gateway.worker.run_once()
    for ref in fake.jobs:
        fake.finish(ref)
        fake.jobs[ref].raw["result"] = {"where": f"https://cdn.example/{ref}.mp4?token=sekret", "key": KEY}
    ended = await admin.gateway.finish(video_id)
    assert ended["error"] == {
        "code": "no_output",
        "message": "up reports the video as completed: completed, but names no file",
    }
    return video_id, (await admin.ask("GET", "repairs"))["data"][0]


async def test_a_finished_task_without_a_file_is_refunded_and_listed(admin: Operator, fake: FakeOpenAI) -> None:
    video_id, repair = await without_file(admin, fake, prompt="p" * 30_000)
    assert await admin.ledger(video_id) == LEFT
    assert (repair["reason"], repair["actions"], repair["held_usd"]) == ("no_file", ["fetch"], 0)
    assert (repair["video"], repair["video_status"], repair["upstream_ref"]) == (video_id, "failed", "video_1")
    body = repair["error"]["body"]
    assert len(body) <= 2_000
    assert '"where": "https://cdn.example/video_1.mp4"' in body, "a long prompt does not push it out"
    assert "sekret" not in body
    assert KEY not in body
    admin.gateway.clock.advance(31 * 86_400)
    assert (await admin.ask("GET", "repairs"))["data"] == []


async def test_a_file_given_by_an_operator_completes_the_job_for_nothing(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video_id, repair = await without_file(admin, fake)
    host, url = elsewhere
    await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=f" {url}\n")
    assert (await admin.gateway.get(video_id))["status"] == "in_progress"
    assert await admin.ledger(video_id) == [*LEFT, ("hold", -HELD)]
    await admin.check_sums()
    contents = len(fake.contents)
    video = await admin.gateway.finish(video_id)
    assert (video["status"], video["error"], video["cost"]) == ("completed", None, 0)
    assert await admin.ledger(video_id) == [*LEFT, ("hold", -HELD), ("settle", HELD)]
    assert (await shown(admin, video_id))["settlement"] == "settled"
    content = await admin.gateway.client.get(f"/v1/videos/{video_id}/content")
    assert content.content == host.file
    assert [call.headers.get("authorization") for call in host.calls] == [None]
    assert len(fake.contents) == contents, "the content call is not asked"
    assert len(fake.submits) == 1
    assert (await admin.ask("GET", "repairs"))["data"] == []


async def test_the_key_goes_to_the_providers_own_origin(admin: Operator, fake: FakeOpenAI) -> None:
    video_id, repair = await without_file(admin, fake)
    fake.content_call = True
    origin = f"http://{fake.polls[0].headers['host']}"
    await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=f"{origin}/v1/videos/video_1/content")
    assert (await admin.gateway.finish(video_id))["status"] == "completed"
    assert fake.contents[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_two_operators_at_once_fetch_once(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video_id, repair = await without_file(admin, fake)
    body = {"action": "fetch", "url": elsewhere[1]}
    path = f"/admin/v1/repairs/{repair['id']}"
    answers = await asyncio.gather(*(admin.client.post(path, json=body) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    assert (await admin.gateway.finish(video_id))["status"] == "completed"
    assert (await admin.client.post(path, json=body)).status_code == 409
    assert await admin.ledger(video_id) == [*LEFT, ("hold", -HELD), ("settle", HELD)]


@pytest.mark.parametrize(
    "fault", [Answer(404), Answer(200, "<html>a page</html>"), Reset()], ids=["404", "page", "reset"]
)
async def test_a_fetch_that_fails_is_refunded_and_listed_again(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str], fault: Any
) -> None:
    video_id, repair = await without_file(admin, fake)
    other = FakeOpenAI()
    other.script("other", *[fault] * 200)
    async with serve(other) as origin:
        await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=f"{origin}/gone.mp4")
        ended = await admin.gateway.finish(video_id, step_s=300)
    assert ended["error"]["code"] == ("output_gone" if fault == Answer(404) else "output_unavailable")
    assert await admin.ledger(video_id) == [*LEFT, ("hold", -HELD), ("refund", HELD)]
    (again,) = (await admin.ask("GET", "repairs"))["data"]
    assert again["id"] == repair["id"]
    await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=elsewhere[1])
    assert (await admin.gateway.finish(video_id))["cost"] == 0
    assert (await admin.ledger(video_id))[4:] == [("hold", -HELD), ("settle", HELD)]


async def test_a_worker_that_dies_during_the_fetch_settles_once(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video_id, repair = await without_file(admin, fake)
    hang, other = Hang(), FakeOpenAI()
    other.script("other", hang)
    async with serve(other) as origin:
        await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=f"{origin}/clip.mp4")
        dying = asyncio.create_task(admin.gateway.worker.run_once())
        await hang.reached.wait()
        admin.gateway.clock.advance(admin.gateway.gateway.settings.lease_s + 1)
        async with another_worker(admin.gateway) as worker:
            other.script("other", Answer(302, b"", {"location": elsewhere[1]}))
            await worker.run_once()
        hang.release.set()
        await dying
    assert (await admin.gateway.get(video_id))["status"] == "completed"
    assert await admin.ledger(video_id) == [*LEFT, ("hold", -HELD), ("settle", HELD)]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/a.mp4",
        "http://2130706433/a.mp4",
        "http://10.1/a.mp4",
        "http://localhost/a.mp4",
        "ftp://cdn.example/a.mp4",
        "data:video/mp4;base64,AAAA",
        "/a.mp4",
        "http://",
        "http://a\0b/",
        "http://[::1",
        " ",
    ],
)
async def test_an_address_that_may_not_be_fetched_is_refused(opened: Open, fake: FakeOpenAI, url: str) -> None:
    async with opened(allow_networks=[]) as admin:
        video_id, repair = await without_file(admin, fake)
        refused = await admin.ask("POST", f"repairs/{repair['id']}", status=400, action="fetch", url=url)
        assert refused["error"]["param"] == "url"
        assert await admin.ledger(video_id) == LEFT
        missing = await admin.ask("POST", f"repairs/{repair['id']}", status=400, action="fetch")
        assert missing["error"]["message"] == "url is required with fetch"


async def test_a_name_of_a_private_address_is_not_fetched(
    opened: Open, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_names(monkeypatch, {"inside.example.com": ["127.0.0.1"]})
    async with opened(allow_networks=[]) as admin:
        video_id, repair = await without_file(admin, fake)
        url = elsewhere[1].replace("127.0.0.1", "inside.example.com")
        await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=url)
        ended = await admin.gateway.finish(video_id, step_s=300)
        assert ended["error"]["code"] == "output_gone"
    assert elsewhere[0].calls == []


async def test_a_deleted_or_unknown_job_is_not_fetched(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video_id, repair = await without_file(admin, fake)
    fetch: dict[str, Any] = {"action": "fetch", "url": elsewhere[1]}
    await admin.ask("POST", "repairs/att_x", status=404, **fetch)
    assert (await admin.gateway.client.delete(f"/v1/videos/{video_id}")).json()["deleted"]
    refused = await admin.ask("POST", f"repairs/{repair['id']}", status=409, **fetch)
    assert "cannot run again" in refused["error"]["message"]
    assert (await admin.ask("GET", "repairs"))["data"] == []


async def test_a_job_cancelled_during_the_fetch_costs_nothing(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video_id, repair = await without_file(admin, fake)
    await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=elsewhere[1])
    await admin.gateway.client.delete(f"/v1/videos/{video_id}")
    await admin.gateway.worker.run_once()
    assert (await admin.gateway.get(video_id))["error"]["code"] == "cancelled"
    assert await admin.ledger(video_id) == [*LEFT, ("hold", -HELD), ("settle", HELD)]
    refused = await admin.ask("POST", f"repairs/{repair['id']}", status=409, action="fetch", url=elsewhere[1])
    assert "does not wait for its file" in refused["error"]["message"]


async def test_an_unknown_outcome_has_to_be_found_first(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    fake.script("submit", Reset())
    await create(admin)
    await admin.gateway.worker.run_once()
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    assert repair["reason"] == "unknown_outcome"
    refused = await admin.ask("POST", f"repairs/{repair['id']}", status=409, action="fetch", url=elsewhere[1])
    assert "found first" in refused["error"]["message"]


@pytest.mark.parametrize("action", ["find", "resubmit", "fail"])
async def test_a_task_without_a_file_has_no_other_action(admin: Operator, fake: FakeOpenAI, action: str) -> None:
    video_id, repair = await without_file(admin, fake)
    await admin.ask("POST", f"repairs/{repair['id']}", status=404, action=action)
    assert await admin.ledger(video_id) == LEFT


async def test_of_two_outputs_each_is_fetched(
    admin: Operator, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video_id, _ = await without_file(admin, fake, n=2)
    repairs = (await admin.ask("GET", "repairs"))["data"]
    for repair in repairs:
        await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=elsewhere[1])
    video = await admin.gateway.finish(video_id)
    assert (video["status"], video["cost"], "warnings" in video) == ("completed", 0, False)
    assert [output["index"] for output in (await shown(admin, video_id))["outputs"]] == [0, 1]


async def test_a_task_without_a_file_is_not_bought_again_at_the_next_route(opened: Open, fake: FakeOpenAI) -> None:
    """Not even where failures are: it was paid for, and its file may still be found."""
    models = {"clip": {"routes": ["up/sora-2", "spare/sora-2"], "retry_failed": True}}
    async with serve(fake) as url, serve(spare := FakeOpenAI()) as other:
        up = {"kind": "lumen", "api_key": KEY, "base_url": f"{url}/v1"}
        providers = {"up": up, "spare": {"kind": "openai", "base_url": f"{other}/v1", "api_key": KEY}}
        async with opened(providers=providers, models=models) as admin:
            fake.script("other", Answer(200, {"id": "a", "status": "queued"}), Answer(200, {"status": "succeeded"}))
            video_id = await create(admin, model="clip")
            assert (await admin.gateway.finish(video_id))["error"]["code"] == "no_output"
            (attempt,) = await admin.gateway.attempts(video_id)
            assert attempt.error_body == '{"status": "succeeded"}'
            assert [repair["id"] for repair in (await admin.ask("GET", "repairs"))["data"]] == [attempt.id]
    assert spare.submits == []
