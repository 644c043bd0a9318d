"""First and last frames whose ratio is not that of the video."""

import subprocess
from base64 import b64decode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import imagesize
import pytest
from catalogue.conftest import Open
from fakes.ark import FakeArk
from harness import Running

from app.media import ffmpeg

pytestmark = pytest.mark.anyio
MODEL, ROUTE = "seedance-1.0-pro", "ark/seedance-1-0-pro-250528"
EXIF = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""A segment that says: turn the stored pixels clockwise."""


def picture(path: Path, size: str) -> bytes:
    """A picture whose left half is red and whose right half is blue."""
    width, height = size.split("x")
    graph = f"color=red:s={size}[a];color=blue:s={int(width) // 2}x{height}[b];[a][b]overlay=x=W/2"
    command = [ffmpeg.program().path, "-y", "-v", "error", "-f", "lavfi", "-i", graph, "-frames:v", "1", str(path)]
    subprocess.run(command, check=True)
    return path.read_bytes()


def colours(content: bytes, tmp_path: Path) -> list[str]:
    """The colours of a picture's four corners and of its middle: red, blue, black or other."""
    source = tmp_path / "read"
    source.write_bytes(content)
    width, height = imagesize.get(BytesIO(content), exif_rotation=False)
    command = [ffmpeg.program().path, "-v", "error", "-noautorotate", "-i", str(source)]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    near, far = 3, -4
    places = [(near, near), (far, near), (near, far), (far, far), (width // 3, height // 3)]
    found = []
    for x, y in places:
        at = 3 * ((y % height) * width + x % width)
        red, green, blue = (value > 128 for value in raw[at : at + 3])
        found.append({(1, 0, 0): "red", (0, 0, 1): "blue", (0, 0, 0): "black"}.get((red, green, blue), "other"))
    return found


def aliased(fit: str | None) -> dict[str, Any]:
    return {"models": {"clip": {"routes": [ROUTE], **({} if fit is None else {"frames": fit})}}}


async def create(gateway: Running, files: Mapping[str, tuple[str, bytes]], status: int = 202, **fields: str) -> Any:
    body = {"prompt": "a boat", "model": "clip", **fields}
    answer = await gateway.client.post("/v1/videos", data=body, files=files)
    assert answer.status_code == status, answer.text
    return answer.json()


async def sent(gateway: Running, ark: FakeArk, video: Mapping[str, Any], role: str = "first_frame") -> bytes:
    """The frame as the vendor got it."""
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    (part,) = (part for part in ark.submits[-1].json["content"] if part.get("role") == role)
    return b64decode(part["image_url"]["url"].partition(",")[2])


@pytest.mark.parametrize("model", ["clip", MODEL])
@pytest.mark.parametrize("query", ["", "?dryRun=true"])
async def test_a_frame_of_another_ratio_is_refused_with_those_that_fit(
    opened: Open, ark: FakeArk, tmp_path: Path, model: str, query: str
) -> None:
    content = picture(tmp_path / "frame.png", "400x400")
    async with opened(**aliased(None)) as gateway:
        body = {"prompt": "a boat", "model": model, "size": "1280x720"}
        files = {"input_reference": ("frame.png", content)}
        refused = await gateway.client.post(f"/v1/videos{query}", data=body, files=files)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "frame_ratio_mismatch")
        assert refused.json()["error"]["param"] == "input_reference"
        assert refused.json()["error"]["message"] == (
            "input_reference: the picture has 400x400 pixels, and the video is to be 16:9; ask for 1:1, or send a "
            "picture of 16:9"
        )
        assert list((tmp_path / "data").rglob("uploads/*")) == []
        for size in ({"size": "720x720"}, {"aspect_ratio": "1:1"}, {}):
            again = {name: value for name, value in body.items() if name != "size"} | size
            taken = await gateway.client.post("/v1/videos", data=again, files=files)
            assert taken.status_code == 202, taken.text


async def test_a_frame_is_cropped_around_its_middle(opened: Open, ark: FakeArk, tmp_path: Path) -> None:
    async with opened(**aliased("crop")) as gateway:
        content = picture(tmp_path / "frame.png", "400x400")
        files = {"input_reference": ("frame.png", content)}
        body = {"prompt": "a boat", "model": "clip", "size": "1280x720"}
        estimate = (await gateway.client.post("/v1/videos?dryRun=true", data=body, files=files)).json()
        assert estimate["warnings"] == ["input_reference was cropped from 400x400 to 16:9"]
        video = await create(gateway, files, size="1280x720")
        assert video["warnings"] == ["input_reference was cropped from 400x400 to 16:9"]
        got = await sent(gateway, ark, video)
        assert imagesize.get(BytesIO(got)) == (400, 225)
        assert colours(got, tmp_path) == ["red", "blue", "red", "blue", "red"]


async def test_a_frame_is_padded_with_black(opened: Open, ark: FakeArk, tmp_path: Path) -> None:
    async with opened(**aliased("pad")) as gateway:
        content = picture(tmp_path / "frame.jpg", "400x400")
        video = await create(gateway, {"input_reference": ("frame.jpg", content)}, aspect_ratio="9:16")
        assert video["warnings"] == ["input_reference was padded from 400x400 to 9:16"]
        got = await sent(gateway, ark, video)
        assert got.startswith(b"\xff\xd8\xff")
        assert imagesize.get(BytesIO(got)) == (400, 712)
        assert colours(got, tmp_path) == ["black", "black", "black", "black", "red"]


async def test_a_picture_of_a_camera_is_turned_first(opened: Open, ark: FakeArk, tmp_path: Path) -> None:
    stored = picture(tmp_path / "frame.jpg", "320x180")
    turned = stored[:2] + EXIF + stored[2:]
    files = {"input_reference": ("frame.jpg", turned)}
    async with opened(**aliased("crop")) as gateway:
        video = await create(gateway, files, aspect_ratio="9:16")
        assert "warnings" not in video
        assert await sent(gateway, ark, video) == turned
        video = await create(gateway, files, aspect_ratio="1:1")
        got = await sent(gateway, ark, video)
        assert imagesize.get(BytesIO(got)) == (180, 180)
        assert colours(got, tmp_path) == ["red", "red", "blue", "blue", "red"], "the left half is at the top"


async def test_both_frames_are_brought_to_the_ratio(opened: Open, ark: FakeArk, tmp_path: Path) -> None:
    async with opened(**aliased("crop")) as gateway:
        files = {
            "input_reference": ("first.png", picture(tmp_path / "first.png", "300x200")),
            "last_frame": ("last.png", picture(tmp_path / "last.png", "200x300")),
        }
        for role in ("first_frame", "last_frame"):
            video = await create(gateway, files, aspect_ratio="1:1")
            assert len(video["warnings"]) == 2
            assert imagesize.get(BytesIO(await sent(gateway, ark, video, role))) == (200, 200)


async def test_a_vendors_own_name_leaves_the_frame_to_the_vendor(opened: Open, ark: FakeArk, tmp_path: Path) -> None:
    async with opened() as gateway:
        content = picture(tmp_path / "frame.png", "400x400")
        files = {"input_reference": ("frame.png", content)}
        video = await create(gateway, files, model=ROUTE, size="1280x720")
        assert await sent(gateway, ark, video) == content


async def test_a_picture_whose_size_is_not_known_is_passed_on_with_a_warning(opened: Open, ark: FakeArk) -> None:
    async with opened() as gateway:
        files = {"input_reference": ("frame.png", b"\x89PNG\r\n\x1a\n" + bytes(100))}
        video = await create(gateway, files, model=MODEL, size="1280x720")
        words = "input_reference: the size of the picture cannot be read, so its ratio was not checked"
        assert words in video["warnings"]


@pytest.mark.parametrize(
    ("fit", "size", "words"),
    [
        ("pad", (400, 400), "the picture cannot be read"),
        ("crop", (400, 400), "the picture cannot be read"),
        ("crop", (30_000, 16), "the picture cannot be read"),
        ("pad", (30_000, 16), "a picture of 30000x16 pixels cannot be brought to 9:16"),
        ("crop", (10_000, 10_000), "a picture of 10000x10000 pixels cannot be brought to 9:16"),
    ],
)
async def test_a_picture_that_cannot_be_read_or_is_too_large_is_refused(
    opened: Open, tmp_path: Path, fit: str, size: tuple[int, int], words: str
) -> None:
    width, height = size
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content = head + b"\x08\x06\x00\x00\x00" + bytes(200)
    async with opened(**aliased(fit)) as gateway:
        files = {"input_reference": ("frame.png", content)}
        refused = await create(gateway, files, 400, aspect_ratio="9:16")
        assert words in refused["error"]["message"]
        assert list((tmp_path / "data").rglob("uploads/*")) == []
