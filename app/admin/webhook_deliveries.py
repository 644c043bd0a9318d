"""Administration API, webhook deliveries of all projects: addresses without paths, no answers of receivers."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from app.accounts import projects
from app.admin import operation_responses as responses
from app.admin.schemas import Given, GivenProject
from app.db.models import Delivery, DeliveryTry
from app.http.context import GatewayDep
from app.http.openapi import returns
from app.http.parameters import Since, only_known_parameters
from app.http.responses import no_store, page_of
from app.video import DeliveryState
from app.webhooks import deliveries
from app.webhooks.events import EventType

routes = APIRouter(tags=["administration"])


@routes.get(
    "/admin/v1/webhook_deliveries",
    responses=returns(responses.ProjectDeliveryPage),
    dependencies=[Depends(only_known_parameters)],
)
async def list_deliveries(
    gateway: GatewayDep,
    project: GivenProject = None,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
    event_type: Annotated[EventType | None, Query(description="Only those of this type of event.")] = None,
    endpoint: Annotated[Given, Query(description="Only those to this endpoint, by id.")] = None,
    since: Annotated[Since | None, Query(description="Created at or after this time; Unix time or ISO 8601.")] = None,
    after: Annotated[Given, Query(description="The `last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Longest page.")] = 20,
) -> Response:
    """List the webhook deliveries of the last 30 days, of all projects, newest first, with every try. The `webhook_url`
    of a request is shown as scheme, host and port; answers of receivers are shown to the project alone."""
    project_id = None
    if project is not None:
        async with gateway.db.transaction() as session:
            project_id = (await projects.get_project(session, project)).id
    async with gateway.db.reading() as connection:
        page, has_more = await deliveries.list_deliveries(
            connection,
            project_id=project_id,
            endpoint_id=endpoint,
            state=state,
            event_type=event_type,
            since=since,
            after=after,
            limit=limit,
        )
    return no_store(page_of([_delivery(*entry) for entry in page], has_more=has_more))


def _delivery(delivery: Delivery, tries: list[DeliveryTry]) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "project": delivery.project_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "video_id": delivery.video_id,
        "webhook_endpoint_id": delivery.endpoint_id,
        "receiver": delivery.queue_key if delivery.endpoint_id is None else None,
        "state": str(delivery.state),
        "created_at": delivery.created_at.isoformat(),
        "next_try_at": delivery.due_at.isoformat() if delivery.ended_at is None else None,
        "ended_at": delivery.ended_at and delivery.ended_at.isoformat(),
        "tries": [
            {
                "at": entry.at.isoformat(),
                "status_code": entry.status,
                "duration_ms": entry.duration_ms,
                "error": entry.error,
            }
            for entry in tries
        ],
    }
