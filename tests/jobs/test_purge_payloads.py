"""Purge of a request's payloads: nothing of its content is left in any row or file, and all its figures are."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from shutil import rmtree
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from dialects.vendors import APILAPLAS
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import Answer, Reset, SlowYes, serve
from harness import Running, StartGateway
from jobs.upstream import provider, stored_keys
from money import ADMIN, Operator, operator_of

from app.db.models import Base, Video
from app.jobs.payloads import KEPT
from app.video import VideoRequest

pytestmark = pytest.mark.anyio

WORD = "zebra"
"""In everything that a client, an upstream or a receiver says about the video."""
PNG = b"\x89PNG\r\n\x1a\n" + WORD.encode() + bytes(64)
SECRET = "whsec_" + "enVicmE" * 8
HOUR_S = 3_600


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hook(receiver: Receiver) -> AsyncIterator[str]:
    async with serve(receiver) as url:
        yield f"{url}/{WORD}?token={WORD}"


@pytest.fixture
async def admin(start_gateway: StartGateway, upstream: str) -> AsyncIterator[Operator]:
    up = provider(upstream)
    prices = {"up/sora-2": 0.1}
    async with (
        start_gateway(providers={"up": up}, prices=prices, admin_key=ADMIN, late_watch_s=86_400) as gateway,
        operator_of(gateway) as operator,
    ):
        yield operator


async def purge(client: httpx.AsyncClient, video_id: str, status: int = 200) -> dict[str, Any]:
    response = await client.delete(f"/v1/requests/{video_id}/payloads")
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


async def tables_with(gateway: Running, word: str) -> list[str]:
    """The tables with a row that has the word in any column."""
    async with gateway.gateway.db.reading() as connection:
        return [
            table
            for table in sorted(Base.metadata.tables)
            if await connection.scalar(
                sa.text(f"select exists (select from {table} as row where row::text ilike :word)"),
                {"word": f"%{word}%"},
            )
        ]


async def files(gateway: Running) -> list[str]:
    store = gateway.gateway.store
    later = gateway.clock().replace(year=gateway.clock().year + 10)
    return [key for folder in ("videos/", "uploads/") for key in await store.written_before(folder, later)]


async def leave(gateway: Running, key: str) -> None:
    """Store a file that no row names."""

    async def content() -> AsyncIterator[bytes]:
        yield PNG

    await gateway.gateway.store.put(key, content(), max_bytes=1_000)


async def due_ids(gateway: Running) -> list[str]:
    async with gateway.gateway.db.reading() as connection:
        return list(await connection.scalars(sa.select(Video.id).where(Video.purge_due_at.is_not(None))))


async def purge_due(gateway: Running) -> bool:
    return bool(await due_ids(gateway))


async def posted(gateway: Running, hook: str, **fields: str) -> httpx.Response:
    """A create with content wherever there may be some."""
    data = {
        "model": "up/sora-2",
        "prompt": f"a {WORD} on a pond",
        "webhook_url": hook,
        "webhook_secret": SECRET,
        "metadata[animal]": WORD,
        "style": WORD,
        "user": "jane",
        **fields,
    }
    return await gateway.client.post("/v1/videos", data=data, files={"input_reference": (f"{WORD}.png", PNG)})


async def create(gateway: Running, hook: str, **fields: str) -> str:
    response = await posted(gateway, hook, **fields)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def ended(gateway: Running, fake: FakeOpenAI, hook: str, *, completed: bool, **fields: str) -> str:
    video_id = await create(gateway, hook, **fields)
    if not completed:
        await gateway.worker.run_once()
        fake.fail("video_1", "bad_prompt", f"a {WORD} is not allowed")
    shown = await gateway.finish(video_id)
    assert shown["status"] == ("completed" if completed else "failed"), shown
    await gateway.worker.run_once()
    return video_id


# What is erased, and what stays


@pytest.mark.parametrize("completed", [True, False])
async def test_nothing_of_the_content_is_left(
    admin: Operator, fake: FakeOpenAI, receiver: Receiver, hook: str, completed: bool
) -> None:
    gateway = admin.gateway
    receiver.always = Answer(200, WORD)
    endpoint = {"name": "mine", "url": hook.replace(WORD, "own"), "event_types": ["video.completed", "video.failed"]}
    assert (await gateway.client.post("/v1/webhook_endpoints", json=endpoint)).status_code == 200
    video_id = await ended(gateway, fake, hook, completed=completed)
    assert len(receiver.received) == 2
    if completed:
        assert (await gateway.client.get(f"/v1/videos/{video_id}/content?variant=thumbnail")).status_code in (200, 404)
    before = await tables_with(gateway, WORD)
    assert set(before) == {"videos", "deliveries", "delivery_tries"} | (set() if completed else {"attempts"})
    ledger = await admin.ledger(video_id)

    assert (await purge(gateway.client, video_id))["purged"] is True
    assert await tables_with(gateway, WORD) == []
    assert await tables_with(gateway, SECRET) == []
    assert await tables_with(gateway, "jane") == ["ledger"], "usage is reported by end user"
    assert await files(gateway) == []
    assert await admin.ledger(video_id) == ledger
    await admin.check_sums()
    row = await admin.ask("GET", f"videos/{video_id}")
    assert row["purged_at"] is not None
    assert WORD not in str(row)


@pytest.mark.parametrize("completed", [True, False])
async def test_figures_times_and_money_stay(gateway: Running, fake: FakeOpenAI, hook: str, completed: bool) -> None:
    video_id = await ended(gateway, fake, hook, completed=completed)
    path = f"/v1/requests/{video_id}"
    shown, logged = await gateway.get(video_id), (await gateway.client.get(path)).json()
    gateway.clock.advance(60)
    await purge(gateway.client, video_id)
    text = "The text of this error was purged on request."
    changed: dict[str, Any] = {"prompt": "", "metadata": {}, "url": None, "output": None}
    if not completed:
        changed["error"] = {"code": shown["error"]["code"], "message": text}
    assert await gateway.get(video_id) == shown | changed
    purged_at = gateway.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    changed = {"user": None, "purged_at": purged_at, "error_message": None if completed else text}
    assert (await gateway.client.get(path)).json() == logged | changed


async def test_the_figures_of_a_request_are_named_and_all_else_is_erased() -> None:
    fields = {name for name, field in VideoRequest.model_fields.items() if not field.exclude}
    assert fields > KEPT
    contents = {"prompt", "negative_prompt", "first_frame", "last_frame", "reference_images", "reference_video"}
    assert contents | {"source", "metadata", "user", "webhook", "extra"} == fields - KEPT


async def test_files_of_all_kinds_are_counted_and_deleted(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="sandbox/testcard", seconds=1, size="64x64", n=2)
    await gateway.finish(video["id"])
    for variant in ("thumbnail", "spritesheet"):
        assert (await gateway.client.get(f"/v1/videos/{video['id']}/content?variant={variant}")).status_code == 200
    answer = await purge(gateway.client, video["id"])
    assert answer == {"id": video["id"], "purged": True, "already_purged": False, "media_deleted": 4}
    assert await files(gateway) == []
    for _ in range(2):
        again = await purge(gateway.client, video["id"])
        assert again == {"id": video["id"], "purged": True, "already_purged": True, "media_deleted": 0}


async def test_two_purges_at_once_are_one(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    answers = await asyncio.gather(*(purge(gateway.client, video_id) for _ in range(4)))
    assert sorted(answer["already_purged"] for answer in answers) == [False, True, True, True]
    assert await files(gateway) == []


async def test_a_running_video_has_to_be_cancelled_first(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    fake.polls_until_done = 10_000
    video_id = await create(gateway, hook)
    for running in ("queued", "in_progress"):
        error = (await purge(gateway.client, video_id, 409))["error"]
        assert (error["code"], error["param"]) == ("request_not_ended", "request_id")
        assert f"the video is {running}; cancel it first with DELETE /v1/videos/{video_id}" in error["message"]
        for _ in range(4):
            await gateway.worker.run_once()
            gateway.clock.advance(20)
    assert (await gateway.get(video_id))["prompt"] == f"a {WORD} on a pond"
    await gateway.client.delete(f"/v1/videos/{video_id}")
    assert (await purge(gateway.client, video_id))["already_purged"] is False
    assert await tables_with(gateway, WORD) == ["deliveries"], "the address of the event that is still to be sent"
    await gateway.worker.run_once()
    assert await tables_with(gateway, WORD) == []


# What can still be done with it


async def test_content_and_links_of_a_purged_video_are_gone(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    link = (await gateway.get(video_id))["output"]["url"]
    await purge(gateway.client, video_id)
    for path in ("content", "content?variant=thumbnail", "content?variant=spritesheet", "content?index=0"):
        response = await gateway.client.get(f"/v1/videos/{video_id}/{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "video_purged")
    response = await gateway.client.get(link, headers={"authorization": ""})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "video_purged")


async def test_nothing_is_made_from_a_purged_video(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    await purge(gateway.client, video_id)
    submits = len(fake.submits)
    by_id = {"prompt": "p", "video": {"id": video_id}}
    frames = {"frame0": {"type": "generation", "id": video_id}}
    for path, body in (
        (f"/v1/videos/{video_id}/remix", {"prompt": "p"}),
        ("/v1/videos/edits", by_id),
        ("/v1/videos/extensions", {**by_id, "seconds": "4"}),
        (f"/luma/generations/{video_id}/extend", {"user_prompt": "p"}),
        (APILAPLAS, {"prompt": "p", "keyframes": frames}),
    ):
        response = await gateway.client.post(path, json=body)
        assert response.status_code == 400, (path, response.text)
        assert "the source video was purged" in response.text
    await gateway.worker.run_once()
    assert len(fake.submits) == submits


async def test_a_repeated_create_returns_the_purged_video_and_pays_for_none(
    gateway: Running, fake: FakeOpenAI, hook: str
) -> None:
    video_id = await ended(gateway, fake, hook, completed=True, idempotency_key="order 17")
    await purge(gateway.client, video_id)
    again = await posted(gateway, hook, idempotency_key="order 17")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert (again.json()["id"], again.json()["prompt"]) == (video_id, "")
    assert await files(gateway) == [], "the upload of the repeated create is not kept"
    await gateway.worker.run_once()
    assert len(fake.submits) == 1
    assert await tables_with(gateway, WORD) == []


async def test_events_of_a_purged_video_have_its_figures(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    await purge(gateway.client, video_id)
    said = (await gateway.client.get(f"/v1/videos/{video_id}/events")).text
    assert "event: end" in said
    assert '"status": "completed"' in said
    assert WORD not in said
    assert (await gateway.client.get(f"/v1/videos/{video_id}?wait=5")).json()["prompt"] == ""


async def test_a_purged_video_can_be_deleted(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    await purge(gateway.client, video_id)
    assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
    await purge(gateway.client, video_id, 404)
    gateway.clock.advance(3_700)
    await gateway.worker.run_once()
    assert await gateway.attempts(video_id) == []


async def test_what_a_deleted_video_had_is_erased_at_once_and_its_row_an_hour_later(
    gateway: Running, fake: FakeOpenAI, hook: str
) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    assert "videos" in await tables_with(gateway, WORD)
    await gateway.client.delete(f"/v1/videos/{video_id}")
    await gateway.worker.purge()
    assert await gateway.gateway.store.written_before("videos/", gateway.clock() + timedelta(days=1)) == []
    assert {"videos", "attempts"}.isdisjoint(await tables_with(gateway, WORD))
    for _ in range(2):
        assert len(await gateway.attempts(video_id)) == 1
        gateway.clock.advance(1_800)
        await gateway.worker.purge()
    gateway.clock.advance(20)
    await gateway.worker.purge()
    assert await gateway.attempts(video_id) == []


# What is written after it


@pytest.mark.parametrize("completed", [True, False])
async def test_a_delivery_that_is_still_tried_has_the_figures_and_then_nothing(
    gateway: Running, fake: FakeOpenAI, receiver: Receiver, hook: str, completed: bool
) -> None:
    receiver.script(Answer(500, WORD))
    video_id = await ended(gateway, fake, hook, completed=completed)
    await purge(gateway.client, video_id)
    assert await tables_with(gateway, WORD) == ["deliveries"], "the address is needed until the last try"
    receiver.always = Answer(200, WORD)
    gateway.clock.advance(60)
    await gateway.worker.run_once()
    _, received = receiver.received
    data = received.json["data"]
    assert (data["id"], data["status"]) == (video_id, "completed" if completed else "failed")
    assert data["output"] is None if completed else data["error"]["message"].startswith("The text of this error was")
    assert received.headers["webhook-signature"].startswith("v1,")
    assert WORD not in received.body.decode()
    assert await tables_with(gateway, WORD) == []
    (delivery,) = (await gateway.client.get(f"/v1/videos/{video_id}/deliveries")).json()["data"]
    assert [(entry["status_code"], entry["answer"]) for entry in delivery["tries"]] == [(500, None), (200, None)]
    again = await gateway.client.post(f"/v1/videos/{video_id}/deliveries/{delivery['id']}/redeliver")
    assert again.status_code == 409
    assert "deleted or purged" in again.json()["error"]["message"]


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_last_try_erases_what_a_delivery_still_needed(
    gateway: Running, fake: FakeOpenAI, receiver: Receiver, hook: str, deleted: bool
) -> None:
    """Also the answers to the tries after the purge, of an endpoint of the project, too."""
    receiver.always = Answer(500, WORD)
    endpoint = {"name": "mine", "url": hook.partition(WORD)[0] + "own", "event_types": ["video.failed"]}
    assert (await gateway.client.post("/v1/webhook_endpoints", json=endpoint)).status_code == 200
    video_id = await ended(gateway, fake, hook, completed=False)
    await purge(gateway.client, video_id)
    if deleted:
        assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
    gateway.clock.advance(60)
    await gateway.worker.run_once()
    assert await tables_with(gateway, WORD) == ["deliveries"], "one more try"
    gateway.clock.advance(73 * HOUR_S)
    await gateway.worker.run_once()
    assert len(receiver.received) == 6
    assert await tables_with(gateway, WORD) == []
    assert await tables_with(gateway, SECRET) == []


async def test_a_folder_that_cannot_be_deleted_does_not_stop_the_other_purges(
    gateway: Running, fake: FakeOpenAI, hook: str
) -> None:
    stuck, other = [await ended(gateway, fake, hook, completed=True) for _ in range(2)]
    for video_id in (stuck, other):
        await purge(gateway.client, video_id)
        await leave(gateway, f"videos/{video_id}/left.mp4")
    path = gateway.gateway.settings.data_dir / "media" / "videos" / stuck
    rmtree(path)
    path.touch()  # no folder, so it cannot be deleted as one
    for _ in range(2):
        gateway.clock.advance(HOUR_S)
        await gateway.worker.purge()
    assert f"videos/{other}/left.mp4" not in await files(gateway)
    assert await due_ids(gateway) == [stuck]
    path.unlink()
    gateway.clock.advance(HOUR_S)
    await gateway.worker.purge()
    assert await due_ids(gateway) == []


async def test_a_purged_cancel_can_be_repeated(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    """Its response was lost: the video is kept for an hour, as without the purge."""
    video_id = await create(gateway, hook)
    await gateway.client.delete(f"/v1/videos/{video_id}")
    await purge(gateway.client, video_id)
    for status in (200, 404):
        assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
        assert (await gateway.client.get(f"/v1/videos/{video_id}")).status_code == status
        gateway.clock.advance(HOUR_S)


async def test_the_text_of_a_task_that_ends_after_the_purge_is_erased(
    gateway: Running, fake: FakeOpenAI, hook: str
) -> None:
    fake.polls_until_done = 10_000
    video_id = await create(gateway, hook)
    await gateway.worker.run_once()
    fake.script("poll", Answer(500, {"error": {"message": f"no {WORD} here", "code": "x"}}))
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert "attempts" in await tables_with(gateway, WORD)
    fake.script("poll", *[Answer(503)] * 3)
    await gateway.client.delete(f"/v1/videos/{video_id}")
    await purge(gateway.client, video_id)
    assert "attempts" in await tables_with(gateway, WORD), "its task runs"
    for _ in range(5):
        gateway.clock.advance(HOUR_S)
        await gateway.worker.run_once()
    assert [attempt.state for attempt in await gateway.attempts(video_id)] == ["cancelled"]
    assert await tables_with(gateway, WORD) == []
    assert not await purge_due(gateway)


@pytest.mark.parametrize("storage_url", [None, "memory:///"])
async def test_a_file_that_a_worker_was_fetching_is_deleted_at_once(
    start_gateway: StartGateway, fake: FakeOpenAI, storage_url: str | None
) -> None:
    fake.polls_until_done = 10_000
    slow = SlowYes(fake, "/video_2/content")
    async with (
        serve(slow) as url,
        start_gateway(providers={"up": provider(f"{url}/v1")}, storage_url=storage_url) as gateway,
    ):
        video = await gateway.create(model="up/sora-2", n=2)
        await gateway.worker.run_once()
        for ref in ("video_1", "video_2"):
            fake.finish(ref)
        gateway.clock.advance(20)
        fetching = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        async with asyncio.timeout(30):
            while not await stored_keys(gateway, video["id"]):  # noqa: ASYNC110  # the other file is being stored
                await asyncio.sleep(0.01)
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        await purge(gateway.client, video["id"])
        slow.release.set()
        await fetching
        assert await files(gateway) == []


async def test_a_file_that_is_stored_after_the_purge_is_deleted(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    """A picture that a request had begun to make, or a file of a worker that was killed."""
    video_id = await ended(gateway, fake, hook, completed=True)
    (key,) = await stored_keys(gateway, video_id)
    await purge(gateway.client, video_id)
    for gap_s in (30, 40, HOUR_S):  # the first pass comes before any repetition is due
        await leave(gateway, f"{key}.thumbnail.webp")
        gateway.clock.advance(gap_s)
        await gateway.worker.purge()
        assert await files(gateway) == ([f"{key}.thumbnail.webp"] if gap_s == 30 else [])
    assert not await purge_due(gateway)


async def test_a_purge_is_repeated_after_the_clock_was_set_back(gateway: Running, fake: FakeOpenAI, hook: str) -> None:
    video_id = await ended(gateway, fake, hook, completed=True)
    (key,) = await stored_keys(gateway, video_id)
    await purge(gateway.client, video_id)
    await leave(gateway, key)
    gateway.clock.advance(-30 * 86_400)
    await gateway.worker.purge()
    assert await files(gateway) == []
    assert await purge_due(gateway), "not for the last time before an hour has passed"
    gateway.clock.advance(31 * 86_400)
    await gateway.worker.purge()
    assert not await purge_due(gateway)


async def test_the_ledger_keeps_no_text_of_an_upstream(admin: Operator, fake: FakeOpenAI, hook: str) -> None:
    gateway = admin.gateway
    video_id = await create(gateway, hook)
    await gateway.worker.run_once()
    await gateway.client.delete(f"/v1/videos/{video_id}")
    fake.script("poll", *[Answer(404, {"error": {"message": f"no {WORD} here", "code": "x"}})] * 5)
    await purge(gateway.client, video_id)
    for _ in range(5):
        gateway.clock.advance(HOUR_S)
        await gateway.worker.run_once()
    assert [kind for kind, _ in await admin.ledger(video_id)] == ["reserve", "refund"]
    assert await tables_with(gateway, WORD) == []


# Repairs


async def test_the_file_of_a_purged_video_is_not_fetched(admin: Operator, fake: FakeOpenAI, hook: str) -> None:
    fake.content_call = False
    video_id = await create(admin.gateway, hook)
    await admin.gateway.worker.run_once()
    fake.finish("video_1")
    assert (await admin.gateway.finish(video_id))["error"]["code"] == "no_output"
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    assert (repair["reason"], repair["video"]) == ("no_file", video_id)
    await purge(admin.gateway.client, video_id)
    assert (await admin.ask("GET", "repairs"))["data"] == []
    url = "https://example.com/clip.mp4"
    refused = await admin.ask("POST", f"repairs/{repair['id']}", status=409, action="fetch", url=url)
    assert "purged job cannot run again" in refused["error"]["message"]


async def lost(admin: Operator, fake: FakeOpenAI, hook: str) -> tuple[str, str]:
    """A video whose submit was taken and never answered, and its attempt."""
    fake.script("submit", Reset())
    video_id = await create(admin.gateway, hook)
    await admin.gateway.worker.run_once()
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    await purge(admin.gateway.client, video_id)
    return video_id, repair["id"]


async def test_a_purged_video_with_an_unknown_outcome_is_not_submitted_again(
    admin: Operator, fake: FakeOpenAI, hook: str
) -> None:
    video_id, attempt_id = await lost(admin, fake, hook)
    assert await files(admin.gateway) == [], "its upload, too"
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    assert repair["prompt"] == ""
    refused = await admin.ask("POST", f"repairs/{attempt_id}", status=409, action="resubmit")
    assert "purged job cannot run again" in refused["error"]["message"]
    await admin.ask("POST", f"repairs/{attempt_id}", action="fail")
    assert [kind for kind, _ in await admin.ledger(video_id)] == ["reserve", "refund"]
    for _ in range(3):
        admin.gateway.clock.advance(HOUR_S)
        await admin.gateway.worker.run_once()
    assert not await purge_due(admin.gateway)
    await admin.check_sums()


async def test_a_task_that_is_found_after_the_purge_is_settled_without_its_file(
    admin: Operator, fake: FakeOpenAI, hook: str
) -> None:
    video_id, attempt_id = await lost(admin, fake, hook)
    (ref,) = fake.jobs
    fake.finish(ref)
    await admin.ask("POST", f"repairs/{attempt_id}", action="find", upstream_ref=ref)
    for _ in range(3):
        admin.gateway.clock.advance(HOUR_S)
        await admin.gateway.worker.run_once()
    assert (await admin.gateway.get(video_id))["status"] == "failed"
    assert [kind for kind, _ in await admin.ledger(video_id)] == ["reserve", "settle"]
    assert await files(admin.gateway) == []
    assert await tables_with(admin.gateway, WORD) == []
    await admin.check_sums()
