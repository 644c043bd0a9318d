"""Files of an upstream that are no video: text, playlists and videos without a readable picture."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer
from harness import Running
from refusals import refused
from samples import box

pytestmark = pytest.mark.anyio


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
TEXTS = {
    "HLS": PLAYLIST,
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "page": b"<!doctype html><title>502</title>",
}


@pytest.mark.parametrize("kind", ["video/mp4", "application/octet-stream", "application/vnd.apple.mpegurl"])
@pytest.mark.parametrize("name", TEXTS)
async def test_a_text_is_no_video_whatever_its_name(up: Running, fake: FakeOpenAI, name: str, kind: str) -> None:
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.finish("video_1")
    fake.script("content", Answer(200, TEXTS[name], {"content-type": kind}))
    up.clock.advance(20)
    await up.worker.run_once()
    assert (await up.get(video["id"]))["status"] == "in_progress"
    assert (await up.finish(video["id"]))[
        "status"
    ] == "completed"  # a temporary failure: the next fetch finds the video now
    assert (await up.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
async def test_a_video_without_a_readable_picture_is_a_404(up: Running, fake: FakeOpenAI, variant: str) -> None:
    fake.file = box(b"ftyp", b"mp42" + bytes(4)) + box(b"moov", PLAYLIST)
    video = await up.create(model="up/sora-2")
    done = await up.finish(video["id"])
    assert (done["status"], done["size"], done["seconds"]) == ("completed", None, None)
    assert [done["output"][name] for name in ("duration_seconds", "width", "height")] == [None] * 3
    answer = await up.client.get(f"/v1/videos/{video['id']}/content?variant={variant}")
    assert refused(answer, None, 404).startswith("no picture can be made of this video")
    assert (answer.json()["error"]["code"], answer.headers["x-should-retry"]) == ("no_picture", "false")
    assert "passwd" not in answer.text
