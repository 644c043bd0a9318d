"""Signed URLs: video files and pictures of them for browsers, uploads for upstreams, callbacks of upstreams."""

import hmac
import json
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from app import errors
from app.db.models import Attempt
from app.http import request_facts
from app.http.context import Gateway, GatewayDep
from app.http.files import bucket_url, content_response, etag, file_response
from app.http.openapi import FILE_HEADERS, VIDEO_TYPES, file_responses
from app.jobs import videos
from app.jobs.claim import poll_now
from app.media.pictures import Variant
from app.media.sniff import HEAD_BYTES, VIDEO_SUFFIXES, sniff_upload

MAX_CALLBACK_BYTES = 2**20
MAX_CHALLENGE_BYTES = 4_096

MEDIA_POLICY = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Content security policy of video files: browsers apply it to the page in which they show an opened video file."""

PICTURE_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""The same for thumbnails and sprite sheets."""

FRESH = "; read the video again for a fresh one"

Expiry = Annotated[str, Query(description="Unix time at which the link expires.")]
Signature = Annotated[str, Query(description="The signature of the link.")]

routes = APIRouter(tags=["media"])


@routes.get(
    "/media/{video_id}/{index:int}.thumbnail.webp",
    response_class=Response,
    responses=file_responses("image/webp"),
    openapi_extra={"parameters": [*FILE_HEADERS]},
)
@routes.head("/media/{video_id}/{index:int}.thumbnail.webp", include_in_schema=False)
async def show_thumbnail(
    video_id: str, index: int, request: Request, gateway: GatewayDep, exp: Expiry = "", sig: Signature = ""
) -> Response:
    """Send the thumbnail of a video file by its signed URL, and make it first if it does not exist yet."""
    _require_signature(request, gateway, exp, sig, FRESH)
    return await _picture(request, gateway, video_id, index, "thumbnail")


@routes.get(
    "/media/{video_id}/{index:int}.spritesheet.jpg",
    response_class=Response,
    responses=file_responses("image/jpeg"),
    openapi_extra={"parameters": [*FILE_HEADERS]},
)
@routes.head("/media/{video_id}/{index:int}.spritesheet.jpg", include_in_schema=False)
async def show_spritesheet(
    video_id: str, index: int, request: Request, gateway: GatewayDep, exp: Expiry = "", sig: Signature = ""
) -> Response:
    """Send the sprite sheet of a video file, 5 by 5 frames, by its signed URL, and make it first if it does not exist
    yet."""
    _require_signature(request, gateway, exp, sig, FRESH)
    return await _picture(request, gateway, video_id, index, "spritesheet")


async def _picture(request: Request, gateway: Gateway, video_id: str, index: int, kind: Variant) -> Response:
    video = await videos.get_video(gateway.db, video_id, project_id=None)
    request_facts.note_video(video)
    response = await content_response(request, gateway, video, index, variant=kind)
    response.headers["content-security-policy"] = PICTURE_POLICY
    return response


@routes.get(
    "/media/{video_id}/{index:int}.{suffix}",
    response_class=Response,
    responses={**file_responses(*VIDEO_TYPES), 307: {"description": "The file is streamed from a bucket."}},
    openapi_extra={"parameters": [*FILE_HEADERS]},
)
@routes.head("/media/{video_id}/{index:int}.{suffix}", include_in_schema=False)
async def play_video(
    video_id: str,
    index: int,
    suffix: str,
    request: Request,
    gateway: GatewayDep,
    exp: Expiry = "",
    sig: Signature = "",
) -> Response:
    """Stream a video file by its signed URL, as given in `output.url`, or redirect to a presigned URL of the bucket."""
    _require_signature(request, gateway, exp, sig, FRESH)
    video = await videos.get_video(gateway.db, video_id, project_id=None)
    request_facts.note_video(video)
    # A presigned URL is valid for GET only, so HEAD is handled here.
    if request.method == "GET":
        left_s = int(int(exp) - gateway.clock().timestamp())
        url = await bucket_url(gateway, video, index, longest_s=left_s)
        if url is not None:
            return RedirectResponse(url, 307, {"cache-control": "no-store"})
    response = await content_response(request, gateway, video, index)
    response.headers["content-security-policy"] = MEDIA_POLICY
    return response


@routes.api_route("/media/uploads/{video_id}/{number:int}", methods=["GET", "HEAD"], include_in_schema=False)
async def fetch_upload(
    video_id: str,
    number: int,
    request: Request,
    gateway: GatewayDep,
    exp: str = "",
    sig: str = "",
) -> Response:
    """Serve an upload to the upstream that received its link."""
    _require_signature(request, gateway, exp, sig)
    key = f"uploads/{video_id}/{number}"
    size = await gateway.store.stat(key)
    if size is None:
        raise errors.NotFound("the upload is gone")
    content_type = sniff_upload(await gateway.store.read(key, 0, HEAD_BYTES)) or "application/octet-stream"
    suffix = VIDEO_SUFFIXES.get(content_type, content_type.rpartition("/")[2])
    return await file_response(
        request,
        gateway,
        key,
        size=size,
        tag=etag(f"{video_id}-{number}"),
        content_type=content_type,
        filename=f"upload.{suffix}",
    )


def _require_signature(request: Request, gateway: Gateway, exp: str, sig: str, next_step: str = "") -> None:
    if not gateway.links.verify(request.scope["path"], exp, sig):
        raise errors.NotFound(f"this link is not valid or has expired{next_step}")


@routes.api_route("/callbacks/{attempt_id}/{token}", methods=["GET", "POST"], include_in_schema=False)
async def callback(attempt_id: str, token: str, request: Request, gateway: GatewayDep) -> Response:
    """Accept an upstream's callback: the task is polled now. Of its content only a `challenge` is read, and repeated:
    some vendors call an address only after that."""
    secret = gateway.links.callback_token(attempt_id)
    if not hmac.compare_digest(token.encode(), secret.encode()):
        raise errors.NotFound("there is nothing at this address")
    body = await _callback_body(request)
    async with gateway.db.reading() as connection:
        name = await connection.scalar(sa.select(Attempt.provider).where(Attempt.id == attempt_id))
        provider = gateway.providers.get(name or "")
        now = gateway.clock()
        if provider is not None and not provider.is_callback(request.headers, body, secret=secret, now=now):
            raise errors.AuthenticationFailed("the signature of this callback is missing or wrong")
        if await poll_now(connection, attempt_id, now=now):
            gateway.wake()
    challenge = _challenge(body)
    return JSONResponse({"received": True} if challenge is None else {"challenge": challenge})


async def _callback_body(request: Request) -> bytes:
    """The body of a callback; empty if it is too long."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_CALLBACK_BYTES:
            return b""
    return bytes(body)


def _challenge(body: bytes) -> str | None:
    if len(body) > MAX_CHALLENGE_BYTES:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    challenge = document.get("challenge") if isinstance(document, dict) else None
    return challenge if isinstance(challenge, str) else None
