"""Pictures that a client uploads as frames of a video: their size as shown, and padding or cropping to a ratio.

The size is read from the first bytes by imagesize, in Python; pixels are decoded by ffmpeg alone, in a child process
with limits.
"""

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import imagesize

from app.media import ffmpeg
from app.media.ffmpeg import FfmpegFailed

HEAD_BYTES = 2**20
"""Bytes in which the size of a picture is looked for; behind colour profiles it may stand far from the start."""
MAX_PIXELS = 8_192 * 8_192
"""Pixels that ffmpeg decodes and scales within its memory limit."""
MAX_SIDE = 4_096
"""Longest side of a picture that was made; a larger one is scaled down, since no vendor makes larger videos."""
MAX_GROWTH = 8
"""Limit of the padded picture's pixels, in pixels of the picture."""
MADE = "image/jpeg"
"""Content type of a picture that was made: a frame needs no transparency, and other types would be ten times larger."""
MAX_WAITING = 50
"""Pictures of one project that wait for their turn in this process."""
MAX_READ_SIDE = 2**31
"""Sides beyond this are not those of a picture."""
DEMUXERS = {"image/png": "png_pipe", "image/jpeg": "jpeg_pipe", "image/webp": "webp_pipe", "image/gif": "gif"}
"""Demuxer by the content type that the first bytes show: ffmpeg must not guess."""
DECODERS = "png,apng,mjpeg,webp,gif"
UPRIGHT = {
    2: "hflip",
    3: "hflip,vflip",
    4: "vflip",
    5: "transpose=cclock_flip",
    6: "transpose=clock",
    7: "transpose=clock_flip",
    8: "transpose=cclock",
}
"""Filter by the orientation of a camera's picture (Exif 2.32, tag 274)."""

Fit = Literal["pad", "crop"]


class Shape(NamedTuple):
    """Size of a picture in pixels as it is shown."""

    width: int
    height: int
    orientation: int = 1
    """Orientation of the stored pixels, by Exif."""


def shape_of(head: bytes) -> Shape | None:
    """The size of a picture by its first bytes; None if they do not show it."""
    try:
        found = imagesize.get_info(BytesIO(head), dpi=False, colors=False, channels=False)
    except Exception:  # it reads untrusted bytes and documents no errors
        return None
    if not (0 < found.width <= MAX_READ_SIDE and 0 < found.height <= MAX_READ_SIDE):
        return None
    return Shape(found.width, found.height, found.rotation if found.rotation in UPRIGHT else 1)


async def fit_picture(
    source: Path,
    target: Path,
    content_type: str,
    shape: Shape,
    ratio: tuple[int, int],
    fit: Fit,
    *,
    project_id: str,
    timeout_s: float,
) -> None:
    """Write the picture padded with black or cropped around its middle to a ratio, as a JPEG of at most `MAX_SIDE`.

    Raises `FfmpegFailed`, and `RateLimited` when too many pictures of the project are waiting.
    """
    across, down = ratio
    if fit == "crop":
        cut = rf"crop=w=min(iw\,ih*{across}/{down}):h=min(ih\,iw*{down}/{across}):exact=1"
    else:
        wide, high = rf"max(iw\,ceil(ih*{across}/{down}))", rf"max(ih\,ceil(iw*{down}/{across}))"
        cut = f"pad=w={wide}:h={high}:x=(ow-iw)/2:y=(oh-ih)/2"
    # Scaled down first, so that padding needs no more memory than decoding.
    smaller = rf"scale=w=min(iw\,{MAX_SIDE}):h=min(ih\,{MAX_SIDE}):force_original_aspect_ratio=decrease"
    graph = ",".join(filter(None, (smaller, UPRIGHT.get(shape.orientation), cut, smaller)))
    opened = ("-noautorotate", "-codec_whitelist", DECODERS, "-f", DEMUXERS[content_type], "-i", str(source))
    output = ("-vf", graph, "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "2", "-map_metadata", "-1", "-f", "image2pipe")
    async with ffmpeg.turns().of(project_id, what="pictures", max_waiting=MAX_WAITING):
        await ffmpeg.run((*opened, *output, str(target)), timeout_s=timeout_s)
    if not await asyncio.to_thread(lambda: target.exists() and target.stat().st_size):
        raise FfmpegFailed("the picture cannot be read")
