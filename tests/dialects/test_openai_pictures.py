"""Links to pictures in `output`: thumbnail and sprite sheet of each file, opened without a key."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import ORIGIN, Running
from media import clips

pytestmark = pytest.mark.anyio

NO_KEY = {"authorization": ""}
SMALL = {"model": "sandbox/testcard", "seconds": 1, "size": "320x240"}
LINKS = {"thumbnail_url": ("thumbnail.webp", "image/webp"), "spritesheet_url": ("spritesheet.jpg", "image/jpeg")}


async def finished(gateway: Running, **fields: Any) -> dict[str, Any]:
    return await gateway.finish((await gateway.create(**{**SMALL, **fields}))["id"])


async def test_each_file_has_links_to_its_pictures_which_are_made_when_first_opened(gateway: Running) -> None:
    done = await finished(gateway, n=2)
    stored = await gateway.gateway.store.written_before(f"videos/{done['id']}/", datetime.max.replace(tzinfo=UTC))
    assert not [key for key in stored if "thumbnail" in key or "spritesheet" in key]
    first, second = done["output"]["files"]
    assert [done["output"][name] for name in LINKS] == [first[name] for name in LINKS]
    for index, file in enumerate((first, second)):
        for name, (suffix, content_type) in LINKS.items():
            assert file[name].startswith(f"{ORIGIN}/media/{done['id']}/{index}.{suffix}?exp={file['expires_at']}&sig=")
            picture = await gateway.client.get(file[name], headers=NO_KEY)
            assert (picture.status_code, picture.headers["content-type"]) == (200, content_type)
            assert picture.headers["content-security-policy"].startswith("default-src 'none'; img-src 'self'")
            variant = f"/v1/videos/{done['id']}/content?variant={name.removesuffix('_url')}&index={index}"
            assert picture.content == (await gateway.client.get(variant)).content
            head = await gateway.client.head(file[name], headers=NO_KEY)
            assert (head.content, head.headers["content-length"]) == (b"", str(len(picture.content)))
            assert clips.pixels(picture.content)[0] > 0


async def test_a_link_to_a_picture_opens_nothing_else_and_expires(gateway: Running) -> None:
    output = (await finished(gateway))["output"]
    video, *pictures = (httpx.URL(output[name]) for name in ("url", *LINKS))
    for picture, other in zip(pictures, reversed(pictures), strict=True):
        query = picture.query.decode()
        forged = [
            picture.copy_with(path=video.path),
            video.copy_with(path=picture.path),
            picture.copy_with(path=other.path),
            picture.copy_with(path=picture.path.replace("/0.", "/1.")),
            picture.copy_with(path=picture.path.replace("/0.", "/00.")),
            picture.copy_with(path=picture.path.replace("video_0", "video_1")),
            picture.copy_with(query=None),
            picture.copy_with(query=query.replace("exp=", "exp=0").encode()),
            picture.copy_with(query=query.partition("&sig=")[0].encode()),
            picture.copy_with(query=f"{query[:-1]}{'A' if query[-1] != 'A' else 'B'}".encode()),
            picture.copy_with(query=f"{query}%ED%A0%80".encode()),
        ]
        for url in forged:
            for method in ("GET", "HEAD"):
                assert (await gateway.client.request(method, url, headers=NO_KEY)).status_code == 404, url
    gateway.clock.advance(gateway.gateway.settings.media_url_ttl_s)
    for url in pictures:
        assert (await gateway.client.get(url, headers=NO_KEY)).status_code == 404


async def test_pictures_of_deleted_and_expired_videos_are_gone(gateway: Running) -> None:
    deleted, expired = await finished(gateway), await finished(gateway, media_retention=60)
    assert expired["output"]["expires_at"] == expired["expires_at"]
    for name in LINKS:
        assert (await gateway.client.get(deleted["output"][name], headers=NO_KEY)).status_code == 200
    await gateway.client.delete(f"/v1/videos/{deleted['id']}")
    gateway.clock.advance(61)
    for video in (deleted, expired):
        for name in LINKS:
            assert (await gateway.client.get(video["output"][name], headers=NO_KEY)).status_code == 404
    assert (await gateway.get(expired["id"]))["output"] is None


async def test_without_ffmpeg_there_are_no_links(
    gateway: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await finished(gateway)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    output = (await gateway.get(done["id"]))["output"]
    assert [output[name] for name in LINKS] == [None, None]
    assert (await gateway.client.get(output["url"], headers=NO_KEY)).status_code == 200
