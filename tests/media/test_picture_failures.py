"""Pictures that cannot be made: rubbish that ffmpeg wrote, failures that are remembered, and those that are not."""

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import Running, StartGateway
from jobs.upstream import stored_keys
from media import clips
from media.clips import RUBBISH, WRITES_RUBBISH, StandIn, clip, pixels
from refusals import refused

from app.media.pictures import Failed, Variant

pytestmark = pytest.mark.anyio

VARIANTS: tuple[Variant, ...] = ("thumbnail", "spritesheet")


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path / "bin", monkeypatch)


@pytest.fixture
async def video(up: Running, fake: FakeOpenAI) -> str:
    """The id of a finished video of two seconds."""
    fake.file = clip("clip.mp4")
    created = await up.create(model="up/sora-2", media_retention=7 * 86_400)
    assert (await up.finish(created["id"]))["status"] == "completed"
    return str(created["id"])


async def ask(up: Running, video: str, variant: Variant = "thumbnail", method: str = "GET") -> httpx.Response:
    return await up.client.request(method, f"/v1/videos/{video}/content?variant={variant}")


async def beside(up: Running, video: str) -> set[str]:
    """The endings of the names of the files beside the video file."""
    (key,) = await stored_keys(up, video)
    found = await up.gateway.store.written_before(f"videos/{video}/", datetime.max.replace(tzinfo=up.clock.now.tzinfo))
    return {name.removeprefix(key) for name in found if name != key}


async def marker(up: Running, video: str, variant: Variant = "thumbnail") -> Failed:
    (key,) = await stored_keys(up, video)
    return Failed.model_validate_json(await up.gateway.store.read(f"{key}.{variant}.failed", 0, 4_096))


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


# Judged by what came out


async def test_rubbish_after_a_seek_is_replaced_by_the_first_frame(up: Running, video: str, ffmpeg: StandIn) -> None:
    ffmpeg.does(f'case "$*" in *" -ss "*) {WRITES_RUBBISH} ;; esac')
    answer = await ask(up, video)
    assert answer.status_code == 200
    assert pixels(answer.content)[:2] == (320, 180)
    assert [" -ss 0.200 " in run for run in ffmpeg.runs] == [True, False]  # a tenth of the length, then the first frame


@pytest.mark.parametrize("script", [WRITES_RUBBISH, 'head -c 100 /dev/zero > "$target"; exit 0', "exit 0"])
async def test_rubbish_is_never_answered_or_stored(up: Running, video: str, ffmpeg: StandIn, script: str) -> None:
    ffmpeg.does(script)
    for variant in VARIANTS:
        answer = await ask(up, video, variant)
        refused(answer, None, 404)
        assert (answer.json()["error"]["code"], answer.headers["x-should-retry"]) == ("no_picture", "false")
    assert await beside(up, video) == {".thumbnail.failed", ".spritesheet.failed"}


async def test_half_a_picture_is_rubbish(up: Running, video: str, ffmpeg: StandIn) -> None:
    whole = (await ask(up, video)).content
    (ffmpeg.path.parent / "half").write_bytes(whole[: len(whole) // 2])
    (key,) = await stored_keys(up, video)
    await up.gateway.store.delete([f"{key}.thumbnail.webp"])
    ffmpeg.does(f'cp "{ffmpeg.path.parent / "half"}" "$target"; exit 0')
    refused(await ask(up, video), None, 404)
    assert await beside(up, video) == {".thumbnail.failed"}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_rubbish_of_an_earlier_release_is_made_again(up: Running, video: str, variant: Variant) -> None:
    (key,) = await stored_keys(up, video)
    name = f"{key}.thumbnail.webp" if variant == "thumbnail" else f"{key}.spritesheet.jpg"
    await up.gateway.store.put(name, pieces(RUBBISH), max_bytes=100)
    head = await ask(up, video, variant, "HEAD")
    answer = await ask(up, video, variant)
    assert head.headers["content-length"] == str(len(answer.content))
    assert pixels(answer.content)[0] in (320, 800)
    assert answer.headers["etag"] == head.headers["etag"]
    assert not answer.headers["etag"].endswith(f'-{len(RUBBISH)}"')


async def test_rubbish_of_an_earlier_release_is_deleted_where_no_picture_can_be_made(
    up: Running, video: str, ffmpeg: StandIn
) -> None:
    (key,) = await stored_keys(up, video)
    await up.gateway.store.put(f"{key}.thumbnail.webp", pieces(RUBBISH), max_bytes=100)
    ffmpeg.does(WRITES_RUBBISH)
    for _ in range(2):
        refused(await ask(up, video), None, 404)
    assert await beside(up, video) == {".thumbnail.failed"}


# Remembered


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_failure_is_remembered_by_all_processes(
    fake: FakeOpenAI, start_gateway: StartGateway, ffmpeg: StandIn, variant: Variant
) -> None:
    fake.file = clips.noise()
    async with serve(fake) as url:
        providers = {"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}}
        async with start_gateway(providers=providers) as first:
            video = (await first.create(model="up/sora-2"))["id"]
            await first.finish(video)
            messages = {refused(await ask(first, video, variant), None, 404)}
            runs = len(ffmpeg.runs)
            assert runs > 0
            messages.add(refused(await ask(first, video, variant), None, 404))
            assert (await ask(first, video, variant, "HEAD")).status_code == 404
            found = await marker(first, video, variant)
            assert (found.code, found.at, found.final, found.ffmpeg) == ("no_picture", first.clock(), True, "99.1")
            first.clock.advance(20 * 86_400)
        async with start_gateway(providers=providers) as second:
            messages.add(refused(await ask(second, video, variant), None, 404))
        assert messages == {found.message}
    assert len(ffmpeg.runs) == runs


async def test_each_picture_has_a_memory_of_its_own(up: Running, video: str, ffmpeg: StandIn) -> None:
    ffmpeg.does('case "$*" in *libwebp*) exit 1 ;; esac')
    refused(await ask(up, video, "thumbnail"), None, 404)
    assert (await ask(up, video, "spritesheet")).status_code == 200
    assert await beside(up, video) == {".thumbnail.failed", ".spritesheet.jpg"}


async def test_another_version_of_ffmpeg_tries_again(
    up: Running, video: str, ffmpeg: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg.does("exit 1")
    refused(await ask(up, video), None, 404)
    newer = StandIn(tmp_path / "newer", monkeypatch, "99.2")
    assert (await ask(up, video)).status_code == 200
    assert newer.runs


async def test_a_kill_by_the_system_is_remembered_for_a_day(up: Running, video: str, ffmpeg: StandIn) -> None:
    ffmpeg.does("kill -9 $$")
    assert "takes too long" in refused(await ask(up, video), None, 404)
    assert not (await marker(up, video)).final
    runs = len(ffmpeg.runs)
    ffmpeg.does("")
    up.clock.advance(timedelta(hours=24).total_seconds() - 1)
    refused(await ask(up, video), None, 404)
    assert len(ffmpeg.runs) == runs
    up.clock.advance(1)
    assert (await ask(up, video)).status_code == 200


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_time_out_is_remembered_for_a_day(
    start_gateway: StartGateway, fake: FakeOpenAI, ffmpeg: StandIn, variant: Variant
) -> None:
    ffmpeg.does("exec sleep 1000")
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": upstream}, ffmpeg_timeout_s=0.3) as up:
            video = (await up.create(model="up/sora-2"))["id"]
            await up.finish(video)
            for _ in range(2):
                message = refused(await ask(up, video, variant), None, 404)
                assert message.endswith("it takes too long (more than 0.3 s)")
                runs = len(ffmpeg.runs)
            assert not (await marker(up, video, variant)).final
    assert len(ffmpeg.runs) == runs <= 3


async def test_an_unreadable_marker_is_ignored(up: Running, video: str) -> None:
    (key,) = await stored_keys(up, video)
    await up.gateway.store.put(f"{key}.thumbnail.failed", pieces(b"{"), max_bytes=100)
    assert (await ask(up, video)).status_code == 200


@pytest.mark.parametrize("how", ["expired", "deleted"])
async def test_markers_go_with_the_video(up: Running, video: str, ffmpeg: StandIn, how: str) -> None:
    ffmpeg.does("exit 1")
    refused(await ask(up, video), None, 404)
    if how == "deleted":
        assert (await up.client.delete(f"/v1/videos/{video}")).status_code == 200
    else:
        up.clock.advance(8 * 86_400)
    await up.worker.purge()
    store = up.gateway.store
    assert await store.written_before("videos/", datetime.max.replace(tzinfo=up.clock.now.tzinfo)) == []


async def test_no_marker_is_left_of_a_video_deleted_meanwhile(up: Running, video: str, ffmpeg: StandIn) -> None:
    ffmpeg.waits()
    asked = asyncio.create_task(ask(up, video))
    while not ffmpeg.runs:
        await asyncio.wait({asked}, timeout=0.01)
    await up.client.delete(f"/v1/videos/{video}")
    await up.worker.purge()
    ffmpeg.go()
    assert refused(await asked, None, 404)
    store = up.gateway.store
    assert await store.written_before("videos/", datetime.max.replace(tzinfo=up.clock.now.tzinfo)) == []


# Not remembered


@pytest.mark.parametrize(
    "script",
    [
        f"kill -{signal.SIGTERM:d} $$",
        "exit 255",  # how ffmpeg itself ends after SIGTERM
        "echo 'Error writing trailer: No space left on device' >&2; exit 1",
    ],
)
async def test_a_fault_of_the_machine_is_not_remembered(up: Running, video: str, ffmpeg: StandIn, script: str) -> None:
    ffmpeg.does(script)
    answer = await ask(up, video)
    refused(answer, None, 500)
    assert answer.json()["error"]["code"] == "ffmpeg_failed"
    assert await beside(up, video) == set()
    ffmpeg.does("")
    assert (await ask(up, video)).status_code == 200


async def test_an_ffmpeg_that_cannot_be_started_is_not_remembered(up: Running, video: str, ffmpeg: StandIn) -> None:
    assert (await ask(up, video, "spritesheet")).status_code == 200
    ffmpeg.path.rename(ffmpeg.path.with_suffix(".away"))
    refused(await ask(up, video), None, 500)
    assert await beside(up, video) == {".spritesheet.jpg"}
    ffmpeg.path.with_suffix(".away").rename(ffmpeg.path)
    assert (await ask(up, video)).status_code == 200
