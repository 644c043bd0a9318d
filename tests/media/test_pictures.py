"""Thumbnails and sprite sheets by the HTTP API: containers, shapes, long videos, and requests that wait in turn."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import serve
from harness import ALICE, Running
from media import clips
from media.clips import StandIn, brighter, brightness, clip, pixels, tile
from refusals import refused

from app.media.ffmpeg import turns
from app.media.pictures import MAX_WAITING

pytestmark = pytest.mark.anyio


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path / "bin", monkeypatch)


async def completed(up: Running, fake: FakeOpenAI, file: bytes | None = None, n: int = 1) -> str:
    """The URL of the content of a new video."""
    fake.file = file or clip("clip.mp4")
    video = await up.create(model="up/sora-2", n=n)
    assert (await up.finish(video["id"]))["status"] == "completed"
    return f"/v1/videos/{video['id']}/content"


async def pictures_of(up: Running, url: str) -> tuple[bytes, bytes]:
    """Thumbnail and sprite sheet."""
    answers = [await up.client.get(f"{url}?variant={variant}") for variant in ("thumbnail", "spritesheet")]
    assert [(answer.status_code, answer.headers["content-type"]) for answer in answers] == [
        (200, "image/webp"),
        (200, "image/jpeg"),
    ]
    return answers[0].content, answers[1].content


CONTAINERS = {
    "clip.mp4": clips.FAST,
    "clip.mov": clips.FAST,
    "clip.mkv": clips.FAST,
    "clip.ts": clips.FAST,
    "clip.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    "clip.gif": ("-an",),
}


@pytest.mark.parametrize("name", CONTAINERS)
async def test_pictures_are_made_of_every_container(up: Running, fake: FakeOpenAI, name: str) -> None:
    file = clip(name, "testsrc=s=320x180:r=12:d=2", *CONTAINERS[name])
    thumbnail, sheet = await pictures_of(up, await completed(up, fake, file))
    assert pixels(thumbnail)[:2] == (320, 180)
    assert pixels(sheet)[:2] == (800, 450)
    assert tile(sheet, 0) != tile(sheet, 24)


async def test_pictures_of_an_animated_webp_are_made_where_ffmpeg_can(up: Running, fake: FakeOpenAI) -> None:
    file = clip("clip.webp", "testsrc=s=320x180:r=12:d=2", "-c:v", "libwebp_anim", "-loop", "0")
    url = await completed(up, fake, file)
    listed = await asyncio.to_thread(subprocess.run, [clips.real(), "-demuxers"], capture_output=True, check=True)
    if b" webp_anim " in listed.stdout:
        thumbnail, sheet = await pictures_of(up, url)
        assert (pixels(thumbnail)[:2], pixels(sheet)[:2]) == ((320, 180), (800, 450))
    else:
        assert refused(await up.client.get(f"{url}?variant=thumbnail"), None, 404)


@pytest.mark.parametrize("kind", [b"free", b"uuid", b"styp"])
async def test_pictures_are_made_of_an_mp4_with_another_first_box(up: Running, fake: FakeOpenAI, kind: bytes) -> None:
    thumbnail, sheet = await pictures_of(up, await completed(up, fake, clips.with_box_first(kind)))
    assert (pixels(thumbnail)[:2], pixels(sheet)[:2]) == ((320, 180), (800, 450))


async def test_pictures_have_the_shape_that_a_player_shows(up: Running, fake: FakeOpenAI) -> None:
    wide = clip("wide.mp4", "testsrc=s=640x480:r=12:d=1,setsar=16/9", *clips.FAST)
    absurd = clip("absurd.mp4", "testsrc=s=320x180:r=12:d=1,setsar=1/1000", *clips.FAST)
    narrow = clip("narrow.mp4", "testsrc=s=16x1600:r=12:d=1", *clips.FAST)
    expected = (
        (wide, (640, 270), (160, 68)),
        (clips.rotated(), (180, 320), (160, 284)),
        (absurd, (320, 180), (160, 90)),
        (narrow, (16, 1600), (6, 600)),
    )
    for file, size, tile_size in expected:
        thumbnail, sheet = await pictures_of(up, await completed(up, fake, file))
        assert pixels(thumbnail)[:2] == size
        assert pixels(sheet)[:2] == (5 * tile_size[0], 5 * tile_size[1])


# Long videos


LONG = brighter(100)


async def test_the_sheet_of_a_long_video_is_made_of_25_seeks(up: Running, fake: FakeOpenAI, ffmpeg: StandIn) -> None:
    url = await completed(up, fake, clip("long.mp4", LONG, *clips.FAST, "-g", "4"))
    sheet = (await up.client.get(f"{url}?variant=spritesheet")).content
    *seeks, encoding = ffmpeg.runs
    assert [run.partition(" -ss ")[2].partition(" ")[0] for run in seeks] == [
        "",
        *(f"{4 * n}.000" for n in range(1, 25)),
    ]
    assert all(" -frames:v 1 " in run for run in seeks)
    assert "rawvideo" in encoding
    assert all(next_one > one + 5 for one, next_one in pairwise(brightness(sheet)))


async def test_a_sheet_takes_key_frames_where_exact_frames_are_too_expensive(
    up: Running, fake: FakeOpenAI, ffmpeg: StandIn
) -> None:
    ffmpeg.does('case "$*" in *noaccurate*|*rawvideo*) ;; *" -ss "*) kill -9 $$ ;; esac')
    url = await completed(up, fake, clip("long.mp4", LONG, *clips.FAST, "-g", "20", "-keyint_min", "20"))
    sheet = (await up.client.get(f"{url}?variant=spritesheet")).content
    assert sum("noaccurate" in run for run in ffmpeg.runs) == 24
    assert [round(value, -1) for value in brightness(sheet)][::5] == [0, 50, 90, 140, 190]
    assert len({round(value) for value in brightness(sheet)}) == 5


async def test_a_damaged_frame_of_a_long_video_is_replaced_by_the_one_before(
    up: Running, fake: FakeOpenAI, ffmpeg: StandIn
) -> None:
    ffmpeg.does('case "$*" in *" -ss 48.000 "*) exit 69 ;; esac')
    url = await completed(up, fake, clip("long.mp4", LONG, *clips.FAST, "-g", "4"))
    shown = brightness((await up.client.get(f"{url}?variant=spritesheet")).content)
    assert shown[12] == pytest.approx(shown[11], abs=1)
    assert shown[10] + 5 < shown[11] < shown[13] - 5


async def test_the_sheet_of_a_video_without_a_length_is_bounded(up: Running, fake: FakeOpenAI, ffmpeg: StandIn) -> None:
    ffmpeg.does('case "$*" in *fps=*) kill -9 $$ ;; esac')
    file = clip("live.mkv", brighter(40, 2), *clips.FAST, "-g", "2", "-f", "matroska", "-live", "1")
    sheet = (await up.client.get(f"{await completed(up, fake, file)}?variant=spritesheet")).content
    assert sum(" -ss " in run for run in ffmpeg.runs) == 24
    assert all(next_one > one + 3 for one, next_one in pairwise(brightness(sheet)))


# Requests that wait for each other


async def test_pictures_wait_in_turn_between_projects(up: Running, fake: FakeOpenAI, ffmpeg: StandIn) -> None:
    ffmpeg.waits()
    mine = [await completed(up, fake) for _ in range(6)]
    created = await up.bob.post("/v1/videos", json={"prompt": "p", "model": "up/sora-2"})
    his = created.json()["id"]
    for _ in range(3):
        await up.worker.run_once()
        up.clock.advance(20)
    asked = [asyncio.create_task(up.client.get(f"{url}?variant=thumbnail")) for url in mine]
    await queued(4, asked)
    asked.append(asyncio.create_task(up.bob.get(f"/v1/videos/{his}/content?variant=thumbnail")))
    await queued(5, asked)
    ffmpeg.go()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 7
    assert [his in run for run in ffmpeg.runs].index(True) == 2


async def test_a_test_card_does_not_wait_for_all_pictures(up: Running, fake: FakeOpenAI, ffmpeg: StandIn) -> None:
    mine = [await completed(up, fake) for _ in range(6)]
    card = await up.create(model="sandbox/testcard", seconds=1, size="64x64")
    await up.worker.run_once()
    up.clock.advance(20)
    ffmpeg.waits()
    asked = [asyncio.create_task(up.client.get(f"{url}?variant=thumbnail")) for url in mine]
    await queued(4, asked)
    working = asyncio.create_task(up.worker.run_once())
    await queued(5, asked)
    ffmpeg.go()
    await asyncio.gather(working, *asked)
    assert ["card.mp4" in run for run in ffmpeg.runs].index(True) == 2
    assert (await up.get(card["id"]))["status"] == "completed"


async def test_too_many_waiting_pictures_are_refused(up: Running, fake: FakeOpenAI, ffmpeg: StandIn) -> None:
    ffmpeg.waits()
    urls = [await completed(up, fake, n=4) for _ in range(7)]
    wanted = [
        f"{url}?variant={kind}&index={i}" for url in urls for i in range(4) for kind in ("thumbnail", "spritesheet")
    ]
    room = MAX_WAITING + 2
    asked = [asyncio.create_task(up.client.get(url)) for url in wanted[:room]]
    await queued(MAX_WAITING, asked)
    answer = await up.client.get(wanted[room])
    assert refused(answer, None, 429)
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answer.headers["retry-after"]) > 0
    ffmpeg.go()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    assert (await up.client.get(wanted[room])).status_code == 200


@pytest.fixture
async def over_tcp(up: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Alice at a server that notices when she hangs up."""
    headers = {"authorization": f"Bearer {ALICE}"}
    async with serve(up.app) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        yield client


async def test_a_client_who_disconnects_leaves_the_queue(
    up: Running, fake: FakeOpenAI, ffmpeg: StandIn, over_tcp: httpx.AsyncClient
) -> None:
    ffmpeg.waits()
    urls = [f"{await completed(up, fake)}?variant=thumbnail" for _ in range(4)]
    making = up.gateway.store.making
    asked: list[asyncio.Task[httpx.Response]] = []
    for url in urls:
        asked.append(asyncio.create_task(over_tcp.get(url)))
        while len(making) < len(asked):
            await asyncio.wait({asked[0]}, timeout=0.01)
    await queued(2, asked)
    asked[3].cancel()
    while len(making) > 3:
        await asyncio.wait({asked[0]}, timeout=0.01)
    asked[0].cancel()  # it has begun, so it is finished
    ffmpeg.go()
    answers = await asyncio.gather(*asked[1:3])
    assert [answer.status_code for answer in answers] == [200, 200]
    async with asyncio.timeout(60):
        while making:
            await up.gateway.store.stat("none")
    assert len(ffmpeg.runs) == 3
    made = await up.gateway.store.written_before("videos/", up.clock().replace(year=9_999))
    assert sum(key.endswith(".webp") for key in made) == 3


async def queued(count: int, asked: list[asyncio.Task[httpx.Response]]) -> None:
    """Wait until so many callers wait for their turn at ffmpeg."""
    async with asyncio.timeout(60):
        while turns().waiting < count:
            await asyncio.wait({asked[0]}, timeout=0.01)
