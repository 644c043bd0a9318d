"""The sandbox provider, asked as the job machine asks it, at moments of our choosing."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from samples import measured

from app import errors
from app.capabilities import OPTIONAL_PARAMETERS, fit
from app.media.measure import Measured
from app.media.uploads import Upload
from app.providers.base import Task
from app.providers.sandbox import Sandbox
from app.video import Failure, Media, Operation, Output, Progress, Status, Submission, VideoRequest

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    provider = Sandbox("sandbox", Sandbox.Config())
    yield provider
    await provider.aclose()


def unread(media: Media) -> AbstractAsyncContextManager[Upload]:
    raise AssertionError("the sandbox reads no uploads")


def make_task(model: str = "testcard", *, after_s: float = 0, **fields: Any) -> Task:
    request = VideoRequest.model_validate({"prompt": "a cat", "model": model, **fields})
    return Task(
        id="att_1",
        model=model,
        request=request,
        read=unread,
        now=START + timedelta(seconds=after_s),
        ref="card_att_1",
        submitted_at=START,
    )


async def fetched(sandbox: Sandbox, task: Task) -> tuple[Measured, bytes]:
    async with sandbox.fetch(task, Output()) as download:
        raw = b"".join([chunk async for chunk in download.chunks])
        assert (download.size, download.content_type) == (len(raw), "video/mp4")
    return await measured(raw), raw


async def test_submit_is_always_the_same(sandbox: Sandbox) -> None:
    expected = Submission(ref="card_att_1", raw_status="waiting", poll_after_s=0.5)
    assert [await sandbox.send(make_task()) for _ in range(2)] == [expected] * 2
    assert sandbox.can_resubmit


@pytest.mark.parametrize(
    ("model", "after_s", "status", "progress", "raw_status", "poll_after_s"),
    [
        ("testcard", 0, Status.queued, 0, "waiting", 0.5),
        ("testcard", 0.4, Status.in_progress, 0, "rendering", 0.5),
        ("testcard", 1.2, Status.in_progress, 49, "rendering", 0.5),
        ("testcard", 1.75, Status.in_progress, 83, "rendering", 0.25),
        ("testcard", 1.999, Status.in_progress, 98, "rendering", 0.05),
        ("fail", 1.2, Status.in_progress, 49, "rendering", 0.5),
        ("slow", 0.1, Status.queued, 0, "waiting", 1.5),
        ("slow", 59.5, Status.in_progress, 98, "rendering", 0.5),
    ],
)
async def test_progress_follows_from_the_time(
    sandbox: Sandbox,
    model: str,
    after_s: float,
    status: Status,
    progress: int,
    raw_status: str,
    poll_after_s: float,
) -> None:
    said = await sandbox.poll(make_task(model, after_s=after_s))
    assert said.poll_after_s == pytest.approx(poll_after_s)
    assert said.model_copy(update={"poll_after_s": None}) == Progress(
        status=status, progress=progress, raw_status=raw_status
    )


@pytest.mark.parametrize(("model", "after_s"), [("testcard", 2), ("testcard", 1e6), ("slow", 60)])
async def test_a_task_ends_after_its_time(sandbox: Sandbox, model: str, after_s: float) -> None:
    assert await sandbox.poll(make_task(model, after_s=after_s)) == Progress(
        status=Status.completed, progress=100, raw_status="done", output=Output()
    )


async def test_the_model_fail_fails(sandbox: Sandbox) -> None:
    await sandbox.send(make_task("fail"))
    failure = Failure(code="sandbox_failure", message="sandbox/fail always fails: that is what it is for")
    assert await sandbox.poll(make_task("fail", after_s=2)) == Progress(
        status=Status.failed, raw_status="failed", failure=failure
    )


async def test_the_model_reject_rejects(sandbox: Sandbox) -> None:
    with pytest.raises(errors.UpstreamRejected) as caught:
        await sandbox.send(make_task("reject"))
    assert caught.value.message == "sandbox/reject refuses every request: that is what it is for"


async def test_a_clock_that_went_back_is_no_error(sandbox: Sandbox) -> None:
    assert (await sandbox.poll(make_task(after_s=-100))).status is Status.queued


async def test_the_times_of_a_task_are_configurable() -> None:
    provider = Sandbox("fast", Sandbox.Config(testcard_s=0, slow_s=1))
    assert (await provider.poll(make_task())).status is Status.completed
    assert (await provider.poll(make_task("slow", after_s=1))).status is Status.completed
    await provider.aclose()


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({}, Measured(4, 1280, 720, "h264", truncated=False)),
        ({"seconds": 1, "size": "640x360"}, Measured(1, 640, 360, "h264", truncated=False)),
        ({"seconds": 1, "aspect_ratio": "9:16"}, Measured(1, 720, 1280, "h264", truncated=False)),
        ({"seconds": 1, "aspect_ratio": "1:1", "resolution": "480p"}, Measured(1, 480, 480, "h264", truncated=False)),
        ({"seconds": 1, "resolution": "360p"}, Measured(1, 640, 360, "h264", truncated=False)),
        ({"seconds": 1.5, "size": "321x241"}, Measured(1.5, 320, 240, "h264", truncated=False)),
    ],
)
async def test_the_video_has_the_requested_size_and_length(
    sandbox: Sandbox, fields: dict[str, Any], header: Measured
) -> None:
    task = make_task(after_s=2, **fields)
    await sandbox.send(task)
    assert (await fetched(sandbox, task))[0] == header


async def test_the_same_task_is_the_same_video_and_a_remix_is_another(sandbox: Sandbox) -> None:
    small: dict[str, Any] = {"size": "320x180", "seconds": 1}
    source = Media(video_id="video_1")
    first = await fetched(sandbox, make_task(**small))
    assert await fetched(sandbox, make_task(**small)) == first
    for operation in (Operation.remix, Operation.edit, Operation.extend):
        header, raw = await fetched(sandbox, make_task(operation=operation, source=source, **small))
        assert header == first[0]
        assert raw != first[1]


async def test_all_parameters_are_accepted(sandbox: Sandbox) -> None:
    picture = Media(key="uploads/a.png", content_type="image/png", filename="a.png")
    task = make_task(
        operation="extend",
        source=Media(key="uploads/b.mp4", content_type="video/mp4"),
        seconds=1,
        size="320x180",
        first_frame=picture,
        last_frame=Media(url="https://example.com/a.png?secret=1"),
        reference_images=[picture, picture],
        reference_video=Media(video_id="video_2"),
        characters=["char_1"],
        negative_prompt="dogs",
        seed=7,
        generate_audio=False,
        loop=True,
        expand_prompt=True,
        extra={"camera": {"zoom": 2}},
    )
    able = sandbox.capabilities("testcard")
    assert able is not None
    assert fit(task.request, able, can_link=False).problems == {}
    assert all(getattr(task.request, name) not in (None, ()) for name in OPTIONAL_PARAMETERS)
    assert (await fetched(sandbox, task))[0] == Measured(1, 320, 180, "h264", truncated=False)


@pytest.mark.parametrize("content_type", [None, "video/mp4"])
@pytest.mark.parametrize("field", ["first_frame", "last_frame", "reference_images"])
async def test_an_upload_that_is_no_image_is_refused(sandbox: Sandbox, field: str, content_type: str | None) -> None:
    upload = Media(key="uploads/1", content_type=content_type, filename="cat.png")
    fields: dict[str, Any] = {field: [upload] if field == "reference_images" else upload}
    task = make_task(**fields)
    with pytest.raises(errors.UpstreamRejected) as caught:
        await sandbox.send(task)
    assert (caught.value.code, caught.value.message) == (
        "invalid_image",
        "cat.png is not a readable image; send a PNG, JPEG, WebP or GIF file",
    )


@pytest.mark.parametrize(
    "fields", [{"size": "8000x8000"}, {"size": "8x8"}, {"aspect_ratio": "100:1"}, {"size": "big"}, {"resolution": "x"}]
)
async def test_a_size_it_cannot_render_is_refused(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamRejected) as caught:
        await sandbox.send(make_task(**fields))
    assert caught.value.code == "invalid_size"


async def test_seconds_have_a_range(sandbox: Sandbox) -> None:
    able = sandbox.capabilities("testcard")
    assert able is not None
    assert set(fit(make_task(seconds=61).request, able, can_link=False).problems) == {"seconds"}
    assert sandbox.capabilities("nosuch") is None


async def test_a_cancel_is_certain(sandbox: Sandbox) -> None:
    assert await sandbox.cancel(make_task())


async def test_a_rendering_that_takes_too_long_fails_the_job() -> None:
    provider = Sandbox("sandbox", Sandbox.Config(timeout_s=0.01))
    with pytest.raises(errors.UpstreamFailed, match=r"ffmpeg was stopped after 0\.01 s"):
        await fetched(provider, make_task())
    await provider.aclose()


def test_without_ffmpeg_the_job_fails_with_the_next_step() -> None:
    script = """if True:
        import asyncio, sys
        sys.modules["imageio_ffmpeg"] = None
        from test_sandbox import Output, Sandbox, errors, make_task

        async def main():
            sandbox = Sandbox("sandbox", Sandbox.Config())
            print((await sandbox.poll(make_task(after_s=2))).failure.model_dump_json())
            try:
                async with sandbox.fetch(make_task(), Output()): pass
            except errors.UpstreamFailed as error:
                print(error.code)

        asyncio.run(main())
    """
    command, root = [sys.executable, "-c", script], Path(__file__).parents[2]
    env = {"PATH": "", "PYTHONPATH": f"{root / 'tests'}:{Path(__file__).parent}"}
    said = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=True, timeout=30)
    message = "there is no ffmpeg program here: install ffmpeg, or the extra `ffmpeg` of this package"
    failure = Failure(code="ffmpeg_missing", message=message).model_dump_json()
    assert said.stdout.splitlines() == [failure, "ffmpeg_missing"]
