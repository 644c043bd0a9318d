"""The administration API: JSON under /admin/v1, with `GATEWAY_ADMIN_KEY`. Shows what clients do not see."""

import hmac
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from app import errors, videos
from app.dialects.base import GatewayDep, gateway_of
from app.tables import Attempt, Video


async def require_admin(request: Request) -> None:
    """Raises `AuthenticationFailed`, `NotFound` where no admin key is set: there is no administration then."""
    key = gateway_of(request).settings.admin_key
    if key is None:
        raise errors.NotFound("there is no administration API; set GATEWAY_ADMIN_KEY to have one", code="unknown_url")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not right:
        raise errors.AuthenticationFailed("send the admin key as `Authorization: Bearer <key>`")


routes = APIRouter(tags=["administration"], dependencies=[Depends(require_admin)])


def _plain(row: Video | Attempt, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    columns = [column.key for column in row.__table__.columns if column.key not in without]
    values = {name: getattr(row, name) for name in columns}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}


@routes.get("/admin/v1/videos/{video_id}")
async def show_video(video_id: str, gateway: GatewayDep) -> Response:
    """One video of whichever owner, with every attempt: where it was sent, what the upstream said, what it cost."""
    video = await videos.get(gateway.db, video_id, owner=None)
    async with gateway.db.reading() as connection:
        attempts = await videos.attempts_of(connection, video_id)
    shown = [_plain(attempt, without=("video_id", "owner", "lease")) for attempt in attempts]
    request = dict(video.request)
    if "webhook" in request:
        request["webhook"] = {**request["webhook"], "secret": None}
    return JSONResponse({**_plain(video, without=("idempotency_hash",)), "request": request, "attempts": shown})
