"""File responses: ranges, ETags, HEAD, variants."""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app import errors
from app.db.models import Video
from app.http.context import Gateway
from app.http.wait import unless_disconnected
from app.media.pictures import Variant, make_variant
from app.media.signed_links import SignedLinks
from app.media.sniff import suffix_of

PRESIGNED_S = 900
"""Longest lifetime of a presigned bucket URL: players request further ranges of the file from it."""


def media_url(video: Video, output: Mapping[str, Any], links: SignedLinks, origin: str) -> str:
    """Signed URL of an output, usable without a key until it expires, at the latest when the file is deleted."""
    return media_link(video, output, links, origin)[0]


def media_link(
    video: Video, output: Mapping[str, Any], links: SignedLinks, origin: str, *, lifetime_s: int | None = None
) -> tuple[str, int]:
    """Signed URL of an output as in `media_url`, and the Unix time at which it expires; `lifetime_s` is another one
    than that of the settings."""
    end = links.end(video.expires_at, lifetime_s=lifetime_s)
    return links.video(video.id, output["index"], output["content_type"], end=end, origin=origin), end


def picture_url(video: Video, output: Mapping[str, Any], kind: Variant, links: SignedLinks, origin: str) -> str:
    """Signed URL of a picture of an output, valid as long as `media_url`."""
    return links.picture(video.id, output["index"], kind, end=links.end(video.expires_at), origin=origin)


async def file_response(
    request: Request, gateway: Gateway, key: str, *, size: int, tag: str, content_type: str, filename: str
) -> Response:
    """Stream a stored file: whole, one range, headers only, or 304."""
    headers = {
        "accept-ranges": "bytes",
        "etag": tag,
        "cache-control": "private, max-age=3600",
        "content-disposition": f'inline; filename="{filename}"',
        "x-content-type-options": "nosniff",
    }
    known = [entry.strip().removeprefix("W/") for entry in request.headers.get("if-none-match", "").split(",")]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if request.method == "GET" else None
    if request.headers.get("if-range", tag) != tag:
        wanted = None
    status, start, end = 200, 0, size
    span = parse_range(wanted, size)
    if span is not None:
        status, (start, end) = 206, span
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content_type)
    chunks = await _with_first_chunk(gateway.store.open(key, start, end))
    return StreamingResponse(chunks, status_code=status, headers=headers, media_type=content_type)


async def _with_first_chunk(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first chunk at once, so that a missing file is an error and not a response that breaks off."""
    first = await anext(chunks, b"")

    async def rejoined() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return rejoined()


async def content_response(
    request: Request,
    gateway: Gateway,
    video: Video,
    index: int | None,
    *,
    variant: Literal["video"] | Variant = "video",
) -> Response:
    """Respond with a finished file (see `get_output`) or an image made from it."""
    output = get_output(video, index, gateway.clock())
    name = f"{video.id}-{output['index']}" if len(video.outputs) > 1 else video.id
    key, size, tag, content_type = output["key"], output["size"], etag(output["sha256"]), output["content_type"]
    suffix = suffix_of(content_type)
    if variant != "video":
        making = make_variant(
            gateway.store,
            key,
            variant,
            duration_s=output["duration_s"],
            project_id=video.project_id,
            timeout_s=gateway.settings.ffmpeg_timeout_s,
            now=gateway.clock(),
        )
        key, size, content_type = await unless_disconnected(request, making)
        tag, suffix = f'{tag[:-1]}-{variant}-{size:x}"', "webp" if variant == "thumbnail" else "jpg"
    return await file_response(
        request, gateway, key, size=size, tag=tag, content_type=content_type, filename=f"{name}.{suffix}"
    )


async def bucket_url(gateway: Gateway, video: Video, index: int, *, longest_s: int = PRESIGNED_S) -> str | None:
    """Presigned bucket URL of a finished file; None if the gateway has to stream it. Raises as `get_output` does."""
    if not gateway.settings.storage_presign:
        return None
    output = get_output(video, index, gateway.clock())
    return await gateway.store.presigned(output["key"], min(longest_s, PRESIGNED_S))


def get_output(video: Video, index: int | None, now: datetime) -> dict[str, Any]:
    """Return one finished file of a video, the first one if `index` is None: of several outputs some may have failed.

    Raises `Conflict` before the video is finished, `VideoExpired`, `NotFound`.
    """
    if not video.status.ended:
        raise errors.Conflict(
            f"the video is {video.status}; download it once its status is completed", code="video_not_ready"
        )
    if video.status == "failed":
        raise errors.NotFound(f"the video failed, so it has no file: {video.error_message}", code="video_failed")
    if video.purged_at is not None:
        raise errors.VideoExpired("the video's files were deleted by a purge of its request", code="video_purged")
    if video.expires_at is not None and video.expires_at <= now:
        raise errors.VideoExpired(f"the video's files were kept until {video.expires_at:%Y-%m-%d %H:%M} UTC")
    for output in video.outputs:
        if index is None or output["index"] == index:
            found: dict[str, Any] = output
            return found
    raise errors.NotFound("the video has no such output", param="index")


RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


class RangeNotSatisfiable(errors.GatewayError):
    """416: the range begins at or after the end of the file."""

    status_code = 416
    type = "invalid_request_error"
    default_code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes", headers={"content-range": f"bytes */{size}"})
        self.size = size


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return (start, end), end not included, of a Range header; None for the whole file.

    None results from no header, several ranges, another unit or an invalid value. Raises `RangeNotSatisfiable`.
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return start, end


def etag(sha256: str) -> str:
    """The strong entity tag of a file."""
    return f'"{sha256[:32]}"'
