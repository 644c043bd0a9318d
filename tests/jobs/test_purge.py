"""Files and uploads that are purged, and those that stay."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import Answer, Hang
from harness import Running
from jobs.upstream import stored_keys
from streams import COPIES

from app import ids
from app.db.models import Video
from app.jobs.purge import BATCH

pytestmark = pytest.mark.anyio


async def test_expired_files_are_deleted_and_the_video_stays(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", media_retention=3600)
    done = await gateway.finish(video["id"])
    assert done["expires_at"] == int(gateway.clock.now.timestamp()) + 3600
    (key,) = await stored_keys(gateway, video["id"])
    gateway.clock.advance(3601)
    assert (await gateway.client.get(f"/v1/videos/{video['id']}/content")).status_code == 404
    await gateway.worker.run_once()
    assert await gateway.gateway.store.stat(key) is None
    shown = await gateway.get(video["id"])
    assert (shown["status"], shown["output"], shown["expires_at"]) == ("completed", None, done["expires_at"])


async def test_a_folder_that_cannot_be_deleted_does_not_stop_the_others(gateway: Running, fake: FakeOpenAI) -> None:
    stuck, expired, deleted = [(await gateway.create(model="up/sora-2", media_retention=3600))["id"] for _ in range(3)]
    for video_id in (stuck, expired, deleted):
        await gateway.finish(video_id)
    path = gateway.gateway.settings.data_dir / "media" / "videos" / stuck
    path.rename(path.with_suffix(".kept"))
    path.touch()  # no folder, so it cannot be deleted as one
    await gateway.client.delete(f"/v1/videos/{deleted}")
    gateway.clock.advance(3_700)
    await gateway.worker.run_once()
    assert [len(await stored_keys(gateway, video_id)) for video_id in (stuck, expired)] == [1, 0]
    assert (len(await gateway.attempts(stuck)), await gateway.attempts(deleted)) == (1, [])
    path.unlink()
    await gateway.worker.purge()
    assert await stored_keys(gateway, stuck) == []


async def test_files_of_an_unfinished_video_are_not_purged(gateway: Running, fake: FakeOpenAI) -> None:
    fake.polls_until_done = 10_000
    video = await gateway.create(model="up/sora-2", n=2, media_retention=60)
    await gateway.worker.run_once()
    fake.finish("video_1")
    for _ in range(5):
        gateway.clock.advance(60)
        await gateway.worker.run_once()
    (key,) = await stored_keys(gateway, video["id"])
    assert await gateway.gateway.store.stat(key) == len(fake.file)


async def test_uploads_are_deleted_when_the_video_has_ended(gateway: Running) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(64)
    fields = {"prompt": "p", "model": "up/sora-2"}
    created = await gateway.client.post("/v1/videos", data=fields, files={"input_reference": ("a.png", png)})
    key = f"uploads/{created.json()['id']}/0"
    assert await gateway.gateway.store.stat(key) == len(png)
    assert (await gateway.finish(created.json()["id"]))["status"] == "completed"
    assert await gateway.gateway.store.stat(key) is None


async def test_files_of_killed_workers_are_deleted_before_the_next_worker_stores_its_own(
    gateway: Running, fake: FakeOpenAI
) -> None:
    """So a worker that is killed as soon as the video has ended leaves none of them behind."""
    video = await gateway.create(model="up/sora-2")
    hang = Hang()
    fake.script("content", Answer(503), hang)
    fake.polls_until_working = fake.polls_until_done = 0
    await gateway.worker.run_once()
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    (attempt,) = await gateway.attempts(video["id"])
    left = f"videos/{video['id']}/{attempt.id}/0123456789.mp4"
    await gateway.gateway.store.put(left, pieces(fake.file), max_bytes=2**20)
    folder = gateway.gateway.store.local_path(left)
    assert folder is not None
    (folder.parent / ".nfs0001").touch()  # a file that is not the store's
    gateway.clock.advance(20)
    download = asyncio.create_task(gateway.worker.run_once())
    await hang.reached.wait()
    assert await gateway.gateway.store.stat(left) is None
    hang.release.set()
    await download
    assert (await gateway.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_file_that_a_killed_worker_stored_and_did_not_record_is_purged(
    gateway: Running, fake: FakeOpenAI, cancelled: bool
) -> None:
    video = await gateway.create(model="up/sora-2")
    fake.script("content", Answer(503))
    fake.polls_until_working = fake.polls_until_done = 0
    await gateway.worker.run_once()
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    (attempt,) = await gateway.attempts(video["id"])
    assert attempt.state == "storing"
    left = f"videos/{video['id']}/{attempt.id}/0123456789.mp4"
    await gateway.gateway.store.put(left, pieces(fake.file), max_bytes=2**20)
    if cancelled:
        await gateway.client.delete(f"/v1/videos/{video['id']}")
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert (await gateway.get(video["id"]))["status"] == ("failed" if cancelled else "completed")
    keys = await gateway.gateway.store.written_before("videos/", gateway.clock())
    assert keys == await stored_keys(gateway, video["id"])
    assert len(keys) == (0 if cancelled else 1)


async def test_rows_that_are_over_do_not_delay_what_was_deleted_just_now(gateway: Running, fake: FakeOpenAI) -> None:
    old, new = [(await gateway.create(model="up/sora-2"))["id"] for _ in range(2)]
    for video_id in (old, new):
        await gateway.finish(video_id)
    await gateway.client.delete(f"/v1/videos/{old}")
    await gateway.worker.purge()
    async with gateway.gateway.db.transaction() as session:
        await session.execute(COPIES, {"id": old, "copies": BATCH})
    gateway.clock.advance(3_700)
    await gateway.client.delete(f"/v1/videos/{new}")
    await gateway.worker.purge()
    assert await gateway.gateway.store.written_before("videos/", gateway.clock()) == []
    await gateway.worker.purge()
    async with gateway.gateway.db.transaction() as session:
        assert list(await session.scalars(sa.select(Video.id))) == [new]


async def test_uploads_that_are_no_longer_needed_are_purged(gateway: Running, fake: FakeOpenAI) -> None:
    """Of a job that was cancelled, and of one that a killed server never wrote down; not those that wait to be sent."""
    fake.script("submit", *[Answer(429)] * 100)
    png = b"\x89PNG\r\n\x1a\n" + bytes(64)
    kept, cancelled = [
        (await gateway.client.post("/v1/videos", data=fields, files={"input_reference": ("a.png", png)})).json()["id"]
        for fields in [{"prompt": "p", "model": "up/sora-2"}] * 2
    ]
    lost, store = ids.new("video"), gateway.gateway.store
    await store.put(f"uploads/{lost}/0", pieces(png), max_bytes=100)
    await gateway.client.delete(f"/v1/videos/{cancelled}")
    for minutes, expected in ((59, {kept, cancelled, lost}), (2, {kept})):
        gateway.clock.advance(minutes * 60)
        await gateway.worker.purge()
        assert {video for video in (kept, cancelled, lost) if await store.stat(f"uploads/{video}/0")} == expected


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
