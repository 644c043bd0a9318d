"""Addresses that carry their own permission: films for browsers, uploads for upstreams, callbacks of upstreams."""

import hmac

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from app import errors
from app.db.models import Video
from app.http.context import Gateway, GatewayDep
from app.http.files import content_response, etag, file_response, get_output
from app.http.openapi import FILE_HEADERS, VIDEO_TYPES, file_responses
from app.jobs import videos
from app.jobs.claim import poll_now
from app.media import mp4

PRESIGNED_S = 900
"""How long an address at the bucket works at most: players go back to it for other parts of the film."""

MEDIA_POLICY = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""A browser shows a film that is opened by itself in a page of its own making, to which the film's policy applies."""

routes = APIRouter(tags=["media"])


@routes.get(
    "/media/{video_id}/{index:int}.mp4",
    response_class=Response,
    responses={**file_responses(*VIDEO_TYPES), 307: {"description": "The file is streamed from a bucket."}},
    openapi_extra={"parameters": [*FILE_HEADERS]},
)
@routes.head("/media/{video_id}/{index:int}.mp4", include_in_schema=False)
async def play(
    video_id: str,
    index: int,
    request: Request,
    gateway: GatewayDep,
    exp: str = "",
    sig: str = "",
) -> Response:
    """Stream a film by its signed link, as found in `output.url`, or lead on to where the bucket streams it."""
    _require_signature(request, gateway, exp, sig, "; read the video again for a fresh one")
    video = await videos.get_video(gateway.db, video_id, project_id=None)
    # A presigned address is for GET alone, so HEAD is answered here.
    if gateway.settings.storage_presign and request.method == "GET":
        address = await _at_the_bucket(gateway, video, index, expires=int(exp))
        if address is not None:
            return RedirectResponse(address, 307, {"cache-control": "no-store"})
    film = await content_response(request, gateway, video, index)
    film.headers["content-security-policy"] = MEDIA_POLICY
    return film


async def _at_the_bucket(gateway: Gateway, video: Video, index: int, *, expires: int) -> str | None:
    """A fresh address of the film at the bucket, which works no longer than the link; None where there is none."""
    output = get_output(video, index, gateway.clock())
    left_s = int(expires - gateway.clock().timestamp())
    return await gateway.store.presigned(output["key"], min(left_s, PRESIGNED_S))


@routes.api_route("/media/uploads/{video_id}/{number:int}", methods=["GET", "HEAD"], include_in_schema=False)
async def fetch_upload(
    video_id: str,
    number: int,
    request: Request,
    gateway: GatewayDep,
    exp: str = "",
    sig: str = "",
) -> Response:
    """Hand an upload to the upstream that was given its link."""
    _require_signature(request, gateway, exp, sig)
    key = f"uploads/{video_id}/{number}"
    size = await gateway.store.stat(key)
    if size is None:
        raise errors.NotFound("the upload is gone")
    content_type = mp4.sniff(await gateway.store.read(key, 0, 64)) or "application/octet-stream"
    suffix = content_type.rpartition("/")[2]
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
async def callback(attempt_id: str, token: str, gateway: GatewayDep) -> Response:
    """An upstream has news of a task. Its content is not read: it only means that the task is polled now."""
    if not hmac.compare_digest(token.encode(), gateway.links.callback_token(attempt_id).encode()):
        raise errors.NotFound("there is nothing at this address")
    async with gateway.db.reading() as connection:
        if await poll_now(connection, attempt_id, now=gateway.clock()):
            gateway.wake()
    return JSONResponse({"received": True})
