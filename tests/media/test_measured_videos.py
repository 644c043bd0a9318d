"""Length, shape, type and name of finished videos: those of the bytes, whatever a header or an upstream says."""

import re
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Call, Job, serve, serve_bytes
from harness import Running, StartGateway
from samples import Samples
from starlette.responses import Response, StreamingResponse

pytestmark = pytest.mark.anyio

MP4, MOV, WEBM, MKV = "video/mp4", "video/quicktime", "video/webm", "video/x-matroska"
TS, GIF, WEBP = "video/mp2t", "image/gif", "image/webp"


@dataclass(frozen=True)
class Shown:
    """A finished video as clients see it."""

    duration_s: float | None
    size: str | None
    seconds: str | None
    content_type: str
    suffix: str


def shown(duration_s: float, size: str = "640x360", content_type: str = MP4, suffix: str = "mp4") -> Shown:
    return Shown(duration_s, size, str(max(1, round(duration_s))), content_type, suffix)


EXPECTED = {
    # the place of the index
    "base.mp4": shown(4),
    "fast.mp4": shown(4),
    "frag.mp4": shown(4),
    "frag_moov.mp4": shown(4),
    "frag_sidx.mp4": shown(4),
    "frag60.mp4": shown(60, "320x180"),
    "mdat64.mp4": shown(4),
    "mdat0.mp4": shown(4),
    "freefirst.mp4": shown(4),
    "uuidfirst.mp4": shown(4),
    "styp.mp4": shown(4),
    # other tracks, edit lists, single frames
    "longaudio.mp4": shown(4),
    "longaudio.mkv": shown(4, content_type=MKV, suffix="mkv"),
    "two.mp4": shown(4),
    "two.mkv": shown(4, content_type=MKV, suffix="mkv"),
    "editlist.mp4": shown(1.5),
    "one.mp4": shown(0.042),
    "still8.mp4": shown(10),
    # lying headers
    "lie_long.mp4": shown(4),
    "lie_zero.mp4": shown(4),
    "all_long.mp4": shown(4),
    "all_zero.mp4": shown(4),
    "lie.webm": shown(4, content_type=WEBM, suffix="webm"),
    # shape
    "rot90.mp4": shown(4, "360x640"),
    "rot180.mp4": shown(4),
    "rot270.mp4": shown(4, "360x640"),
    "sar.mp4": shown(3, "1138x480"),
    # codecs and containers
    "hevc10.mp4": shown(3),
    "av1.mp4": shown(1, "320x180"),
    "clip.mov": shown(4, content_type=MOV, suffix="mov"),
    "web.webm": shown(4, content_type=WEBM, suffix="webm"),
    "live.webm": shown(4, content_type=WEBM, suffix="webm"),
    "mkv.mkv": shown(3, content_type=MKV, suffix="mkv"),
    "ts.ts": shown(1.937, "320x180", TS, "ts"),
    "m2ts.ts": shown(1.937, "320x180", TS, "ts"),
    "anim.gif": shown(2.01, "160x90", GIF, "gif"),
    "anim.webp": shown(2, "160x90", WEBP, "webp"),
    # appended bytes
    "zeros.mp4": shown(4),
    "freelast.mp4": shown(4),
    "textlast.mp4": shown(4),
    "zeros.webm": shown(4, content_type=WEBM, suffix="webm"),
}


class Upstream(FakeOpenAI):
    """Makes the sample that the prompt names; sends it without a length and as `declared`."""

    def __init__(self, samples: Samples, declared: str) -> None:
        super().__init__(polls_until_working=0, polls_until_done=0)
        self.samples = samples
        self.declared = declared

    def content(self, job: Job, call: Call) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            content = self.samples(job.asked["prompt"])
            yield content[:100]
            yield content[100:]

        return StreamingResponse(pieces(), media_type=self.declared)


def provider(url: str) -> dict[str, Any]:
    return {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}


async def finished(gateway: Running, names: list[str], **fields: Any) -> dict[str, dict[str, Any]]:
    """Create a video for each sample and finish them all."""
    ids = {name: (await gateway.create(model="up/sora-2", prompt=name, **fields))["id"] for name in names}
    done: dict[str, dict[str, Any]] = {}
    for _ in range(50):
        await gateway.worker.run_once()
        gateway.clock.advance(20)
        done = {name: await gateway.get(video_id) for name, video_id in ids.items()}
        if all(video["status"] in ("completed", "failed") for video in done.values()):
            return done
    raise AssertionError({name: video["status"] for name, video in done.items()})


def seen(video: dict[str, Any]) -> Shown:
    """Return the facts in a video object; width and height have to be those of the size."""
    output = video["output"]
    assert video["size"] == (f"{output['width']}x{output['height']}" if output["width"] else None)
    suffix = re.search(r"/media/video_\w+/0\.(\w+)\?exp=", output["url"])
    assert suffix is not None
    return Shown(output["duration_seconds"], video["size"], video["seconds"], output["content_type"], suffix[1])


@pytest.mark.parametrize("declared", ["video/mp4", "application/octet-stream"])
async def test_length_shape_and_type_are_those_of_the_file(
    start_gateway: StartGateway, samples: Samples, declared: str
) -> None:
    async with serve(Upstream(samples, declared)) as url, start_gateway(providers={"up": provider(url)}) as gateway:
        done = await finished(gateway, list(EXPECTED))
        assert {name: seen(video) for name, video in done.items()} == EXPECTED
        for name, video in done.items():
            await check_files(gateway, video, EXPECTED[name], samples(name))


async def check_files(gateway: Running, video: dict[str, Any], expected: Shown, content: bytes) -> None:
    """The content, a range of it and the signed link have the type and the name of the bytes."""
    for path in (f"/v1/videos/{video['id']}/content", video["output"]["url"]):
        whole = await gateway.client.get(path)
        part = await gateway.client.get(path, headers={"range": "bytes=100-1099"})
        assert (whole.status_code, whole.content) == (200, content)
        assert (part.status_code, part.content) == (206, content[100:1100])
        for response in (whole, part):
            assert response.headers["content-type"] == expected.content_type
            name = f'inline; filename="{video["id"]}.{expected.suffix}"'
            assert response.headers["content-disposition"] == name
    (attempt,) = await gateway.attempts(video["id"])
    (stored,) = (gateway.gateway.settings.data_dir / "media" / "videos" / video["id"] / attempt.id).iterdir()
    assert stored.suffix == f".{expected.suffix}"


async def test_a_file_behind_a_redirect_is_measured(up: Running, fake: FakeOpenAI, samples: Samples) -> None:
    video = await up.create(model="up/sora-2")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: binary/octet-stream\r\nconnection: close\r\n\r\n"
    async with serve_bytes(head + samples("web.webm")) as url:
        await up.worker.run_once()
        fake.elsewhere("video_1", f"{url}/clip.mp4")
        done = await up.finish(video["id"])
    assert seen(done) == EXPECTED["web.webm"]


@pytest.mark.parametrize(
    ("requested", "shown_as"), [("4", "4"), ("4.4", "4.4"), ("3.6", "3.6"), ("5", "4"), ("8", "4"), (None, "4")]
)
async def test_the_requested_length_is_shown_only_if_the_file_has_it(
    up: Running, fake: FakeOpenAI, samples: Samples, requested: str | None, shown_as: str
) -> None:
    fake.file = samples("base.mp4")
    created = await up.create(model="up/sora-2", size="1280x720", seconds=requested)
    assert (created["seconds"], created["size"]) == (requested or "4", "1280x720")
    done = await up.finish(created["id"])
    assert (done["seconds"], done["size"], done["output"]["duration_seconds"]) == (shown_as, "640x360", 4)


async def test_nothing_is_invented_for_a_file_that_cannot_be_measured(up: Running, fake: FakeOpenAI) -> None:
    fake.file = bytes(range(256)) * 40
    fake.script("content", *[Answer(200, fake.file, {"content-type": "video/x-flv"})] * 2)
    unmeasured = Shown(None, None, None, "video/x-flv", "mp4")
    created = await up.create(model="up/sora-2")
    assert (created["seconds"], created["size"]) == ("4", "720x1280")
    assert seen(await up.finish(created["id"])) == unmeasured
    created = await up.create(model="up/sora-2", seconds="8", size="1280x720")
    done = await up.finish(created["id"])
    assert (done["seconds"], done["size"], done["output"]["duration_seconds"]) == ("8", "1280x720", None)


async def test_the_thumbnail_of_a_rotated_video_has_its_shape(up: Running, fake: FakeOpenAI, samples: Samples) -> None:
    fake.file = samples("rot90.mp4")
    done = await up.finish((await up.create(model="up/sora-2"))["id"])
    thumbnail = await up.client.get(f"/v1/videos/{done['id']}/content?variant=thumbnail")
    width, height = struct.unpack_from("<HH", thumbnail.content, 26)
    assert f"{width & 0x3FFF}x{height & 0x3FFF}" == done["size"] == "360x640"


@pytest.mark.parametrize(("name", "suffix"), [("web.webm", "webm"), ("clip.mov", "mov")])
async def test_every_dialect_links_to_the_name_of_the_type(
    up: Running, fake: FakeOpenAI, samples: Samples, name: str, suffix: str
) -> None:
    fake.file = samples(name)
    video = await up.finish((await up.create(model="up/sora-2"))["id"])
    found = await up.client.get(f"/luma/generations/{video['id']}")
    assert found.status_code == 200, found.text
    raw = found.json()["video_raw"]
    assert re.search(rf"/0\.{suffix}\?exp=", raw["url"])
    assert (raw["width"], raw["height"], raw["duration"]) == (640, 360, 4)


async def test_an_older_link_to_a_file_of_another_type_goes_on_to_work(
    up: Running, fake: FakeOpenAI, samples: Samples
) -> None:
    """Links handed out before names followed the type end in `.mp4`."""
    fake.file = samples("web.webm")
    video = await up.finish((await up.create(model="up/sora-2"))["id"])
    links = up.gateway.links
    link = links.video(video["id"], 0, "video/mp4", end=links.end(None), origin="http://gateway.test")
    played = await up.client.get(link)
    assert link.partition("?")[0].endswith("/0.mp4")
    assert (played.status_code, played.headers["content-type"], played.content) == (200, "video/webm", fake.file)
    assert (await up.client.get(link.replace("/0.mp4", "/0.webm"))).status_code == 404
