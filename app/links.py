"""Signed links: a film plays in a browser without a key, until the link expires."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app import errors, videos
from app.dialects import base
from app.dialects.base import GatewayDep

routes = APIRouter(tags=["media"])


@routes.get("/media/{video_id}/{index}.mp4")
@routes.head("/media/{video_id}/{index}.mp4", include_in_schema=False)
async def play(
    video_id: str,
    index: int,
    request: Request,
    gateway: GatewayDep,
    exp: Annotated[str, Query(max_length=20)] = "",
    sig: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Stream a film by its signed link, as found in `output.url`."""
    if not gateway.signer.verify(request.scope["path"], exp, sig, gateway.clock().timestamp()):
        raise errors.NotFound("this link is not valid or has expired; read the video again for a fresh one")
    async with gateway.db.reading() as connection:
        video = await videos.get(connection, video_id, owner=None)
    return await base.content(request, gateway, video, index)
