"""The attempts of a video as its client sees them; this gateway's own."""

from typing import Any, Literal

from fastapi.responses import Response

from app.db.models import Attempt
from app.dialects.openai.router import AliasedRouter
from app.http.context import CallerDep, GatewayDep, get_video
from app.http.openapi import ResponseModel, returns
from app.http.parameters import KnownParameters
from app.http.responses import no_store
from app.jobs import videos
from app.video import AttemptState

routes = AliasedRouter(tags=["videos"])


class AttemptError(ResponseModel):
    """The reason why an attempt failed, in the words of the video's own `error`."""

    code: str
    message: str | None
    """Null: erased by a purge."""


class VideoAttemptDetails(ResponseModel):
    """One task at one provider: each output of a video and each fail-over is an attempt of its own. Times are Unix
    times in seconds."""

    id: str
    object: Literal["video.attempt"]
    output_index: int
    """The output that it makes, from 0."""
    provider: str
    upstream_model: str
    state: AttemptState
    created_at: int
    submitted_at: int | None
    accepted_at: int | None
    """Time at which the provider accepted it."""
    ended_at: int | None
    error: AttemptError | None


class VideoAttemptList(ResponseModel):
    """The last attempts of a video, oldest first; those that made an output are among them."""

    object: Literal["list"]
    data: list[VideoAttemptDetails]
    has_more: bool
    """True: there were more; at most 20 are shown."""


def _attempt(attempt: Attempt) -> dict[str, Any]:
    moments = {
        name: None if (at := getattr(attempt, name)) is None else int(at.timestamp())
        for name in ("created_at", "submitted_at", "accepted_at", "ended_at")
    }
    failure = {"code": attempt.error_code, "message": attempt.error_message}
    has_failed = attempt.ended_at is not None and attempt.state is not AttemptState.succeeded  # not a poll of it alone
    return {
        "id": attempt.id,
        "object": "video.attempt",
        "output_index": attempt.output_index,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
        "state": str(attempt.state),
        **moments,
        "error": failure if has_failed and attempt.error_code is not None else None,
    }


@routes.get(
    "/v1/videos/{video_id}/attempts",
    responses=returns(VideoAttemptList),
)
async def list_attempts(video_id: str, gateway: GatewayDep, caller: CallerDep, _: KnownParameters) -> Response:
    """List the attempts to make a video: the providers in the order in which they were tried, with times and errors."""
    await get_video(gateway, caller, video_id)
    async with gateway.db.reading() as connection:
        found, has_more = await videos.list_shown_attempts(connection, video_id)
    return no_store({"object": "list", "data": [_attempt(attempt) for attempt in found], "has_more": has_more})
