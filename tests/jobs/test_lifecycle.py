"""The life of a job without trouble, through the HTTP API."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer
from harness import Running

pytestmark = pytest.mark.anyio


async def test_a_job_goes_queued_in_progress_completed(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", seconds="4", size="1280x720")
    assert (video["status"], video["progress"]) == ("queued", 0)
    seen = []
    for _ in range(10):
        await gateway.worker.run_once()
        seen.append((await gateway.get(video["id"]))["status"])
        gateway.clock.advance(20)
    assert sorted(set(seen), key=seen.index) == ["queued", "in_progress", "completed"]
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == fake.file
    assert len(fake.submits) == 1


async def test_completed_is_shown_only_once_the_file_is_stored(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.script("content", Answer(503))
    fake.finish("video_1")
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    shown = await gateway.get(video["id"])
    assert (shown["status"], shown["progress"]) == ("in_progress", 0)
    assert [a.state for a in await gateway.attempts(video["id"])] == ["storing"]
    assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_reading_a_video_never_calls_an_upstream(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    for _ in range(5):
        await gateway.get(video["id"])
    assert fake.polls == fake.submits == []


async def test_four_outputs_are_four_attempts_and_one_video(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", n=4)
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    assert len(done["output"]["files"]) == 4
    assert len(fake.submits) == 4
    for index in range(4):
        part = await gateway.client.get(f"/v1/videos/{video['id']}/content", params={"index": index})
        assert part.content == fake.file


@pytest.mark.parametrize("ref", ["video_1", "video_2"])
async def test_some_outputs_failing_is_completed_with_a_warning(gateway: Running, fake: FakeOpenAI, ref: str) -> None:
    video = await gateway.create(model="up/sora-2", n=2)
    await gateway.worker.run_once()
    fake.fail(ref, "boom", "the paper caught fire")
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    assert any("the paper caught fire" in warning for warning in done["warnings"])
    left = int(done["output"]["url"].partition(".mp4")[0].rpartition("/")[2])
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert (content.status_code, content.content) == (200, fake.file), "without an index: the output that exists"
    assert content.headers["content-disposition"] == f'inline; filename="{video["id"]}.mp4"'
    for index in range(2):
        content = await gateway.client.get(f"/v1/videos/{video['id']}/content?index={index}")
        assert content.status_code == (200 if index == left else 404)
