"""Pictures in every sort of store: made once, kept, and nothing left behind by what goes wrong."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from media.clips import clip, noise

from app.media import ffmpeg, frames
from app.media.frames import NoPicture
from app.media.pictures import Picture, Variant, make_variant
from app.media.sniff import sniff
from app.media.store import MissingFile, Store
from app.settings import Settings

MIB = 2**20


async def source(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def picture(store: Store, kind: Variant, key: str = "v/clip.mp4", timeout_s: float = 60) -> Picture:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    return await make_variant(store, key, kind, duration_s=2, project_id="p", timeout_s=timeout_s, now=now)


def open_store(tmp_path: Path, url: str | None) -> Store:
    return Store.from_settings(Settings(_env_file=None, data_dir=tmp_path, storage_url=url))


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path, "memory:///" if request.param == "memory" else f"file://{tmp_path}/media")


async def keys(store: Store) -> list[str]:
    return sorted(await store.written_before("v/", datetime.max.replace(tzinfo=UTC)))


async def test_pictures_are_made_once_and_kept(store: Store) -> None:
    await store.put("v/clip.mp4", source(clip("clip.mp4")), max_bytes=MIB)
    made = await asyncio.gather(*(picture(store, "thumbnail") for _ in range(3)))
    assert store.making == {}
    size = await store.stat("v/clip.mp4.thumbnail.webp")
    assert made == [("v/clip.mp4.thumbnail.webp", size, "image/webp")] * 3
    sheet = await picture(store, "spritesheet")
    assert (sheet.key, sheet.content_type) == ("v/clip.mp4.spritesheet.jpg", "image/jpeg")
    for key, kind in ((made[0].key, "image/webp"), (sheet.key, "image/jpeg")):
        assert sniff(await store.read(key, 0, 64)) == kind
    await store.delete(["v/clip.mp4"])
    assert await picture(store, "thumbnail") == made[0]
    with pytest.raises(MissingFile):
        await picture(store, "thumbnail", "v/none.mp4")
    assert await keys(store) == ["v/clip.mp4.spritesheet.jpg", "v/clip.mp4.thumbnail.webp"]


async def test_one_caller_who_goes_away_takes_no_picture_from_another(store: Store) -> None:
    await store.put("v/clip.mp4", source(clip("clip.mp4")), max_bytes=MIB)
    impatient, patient = (asyncio.create_task(picture(store, "thumbnail")) for _ in range(2))
    while not store.making:
        await asyncio.wait({impatient}, timeout=0.001)
    impatient.cancel()
    assert (await patient).key == "v/clip.mp4.thumbnail.webp"


async def test_a_picture_of_a_video_deleted_meanwhile_is_deleted_with_it(store: Store) -> None:
    await store.put("v/clip.mp4", source(clip("clip.mp4")), max_bytes=MIB)
    making = asyncio.create_task(picture(store, "spritesheet"))
    while not psutil.Process().children():  # ffmpeg
        await asyncio.wait({making}, timeout=0.001)
    await store.delete_prefix("v/")
    with pytest.raises((MissingFile, ffmpeg.FfmpegFailed)):
        await making
    assert await keys(store) == []


@pytest.mark.parametrize("kind", ["thumbnail", "spritesheet"])
@pytest.mark.parametrize("what", ["text", "playlist", "half a video", "noise", "no time"])
async def test_a_failure_leaves_a_marker_and_nothing_else(
    store: Store, tmp_path: Path, what: str, kind: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(ffmpeg.program)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    video = clip("clip.mp4")
    content = {
        "text": b"no video at all",
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "half a video": video[: video.index(b"mdat") + 104],
        "noise": noise(),
    }.get(what, video)
    await store.put("v/clip.mp4", source(content), max_bytes=MIB)
    with pytest.raises(NoPicture) as caught:
        await picture(store, kind, timeout_s=0.001 if what == "no time" else 60)
    assert caught.value.final is (what != "no time")
    assert await store.stat("v/clip.mp4") == len(content)
    assert await keys(store) == ["v/clip.mp4", f"v/clip.mp4.{kind}.failed"]
    assert list(scratch.iterdir()) == []
    assert store.making == {}


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"RIFF\x0c\0\0\0WEBPVP8 ....", True),
        (b"RIFF\x0d\0\0\0WEBPVP8 ....", False),
        (b"RIFF\x0c\0\0\0WAVEfmt ....", False),
        (b"\0\0\0\0\xf8\xff\xff\xff", False),
        (b"", False),
    ],
)
def test_a_webp_is_whole_when_its_length_is_what_it_says(content: bytes, whole: bool) -> None:
    assert frames.is_webp(content) is whole
    assert frames.is_webp(content[:16], len(content)) is whole
