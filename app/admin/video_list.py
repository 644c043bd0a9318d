"""Administration API, the list of the videos of all projects."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy import RowMapping, func

from app.accounts import projects
from app.admin import responses
from app.db.models import Video
from app.http import filters
from app.http.context import Gateway, GatewayDep
from app.http.openapi import returns
from app.http.responses import no_store

routes = APIRouter(tags=["administration"])

MAX_PROMPT_CHARACTERS = 500
_COLUMNS = (
    *(Video.id, Video.project_id.label("project"), Video.key_id, Video.dialect, Video.status, Video.progress),
    *(Video.model, Video.provider, Video.upstream_model, Video.source_video_id),
    func.left(Video.request["prompt"].astext, MAX_PROMPT_CHARACTERS).label("prompt"),
    *(Video.request[name].astext.label(name) for name in ("app", "user")),
    *(Video.cost_estimate_micros, Video.cost_micros, Video.billed_s, Video.settlement),
    *(Video.error_code, Video.error_message),
    *(Video.created_at, Video.updated_at, Video.completed_at, Video.ended_at, Video.expires_at, Video.purged_at),
)


class AdminListQuery(filters.ListQuery):
    """Parameters of GET /admin/v1/videos."""

    project: filters.Name | None = None
    """Only videos of this project, by id or name."""

    async def project_id(self, gateway: Gateway) -> str | None:
        """The id of the project; None for those of all. Raises `NotFound`."""
        if self.project is None:
            return None
        async with gateway.db.transaction() as session:
            return (await projects.get_project(session, self.project)).id


@routes.get(
    "/admin/v1/videos", responses=returns(responses.VideoList), openapi_extra={"parameters": [filters.METADATA]}
)
async def list_videos(request: Request, gateway: GatewayDep, query: Annotated[AdminListQuery, Query()]) -> Response:
    """List the videos of all projects, or of one, newest first, with the filters of `GET /v1/videos`. Request the next
    page with `after=<last_id>` while `has_more` is true. Without `project`, the filters `user`, `app`, `provider`,
    `metadata` and `q` look at the first 20,000 videos of all, whatever the other filters are."""
    wanted = query.filters(request, await query.project_id(gateway))
    found = await filters.find_page(gateway, wanted, query.wanted, _COLUMNS, holder="admin")
    return no_store(filters.found_page(found, [_video(row) for row in found.rows]))


def _video(row: RowMapping) -> dict[str, Any]:
    values = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
    return {**values, "object": "video"}
