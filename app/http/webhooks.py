"""Test events for webhook endpoints, sent for the API and for the console."""

from app.db.models import WebhookEndpoint
from app.http.context import Gateway
from app.webhooks import endpoints, events
from app.webhooks.sender import Answer


async def send_test(
    gateway: Gateway, endpoint_id: str, event_type: str, *, project_id: str, longest_s: float | None = None
) -> tuple[WebhookEndpoint, Answer]:
    """Send one sample event now, and wait for the answer, `longest_s` at most where it is given. Raises `NotFound`,
    `InvalidRequest` for an unknown type, and `RateLimited` while other tests of the project are under way."""
    (known,) = events.checked_event_types([event_type], "event_type")
    async with gateway.db.reading() as connection:
        endpoint = await endpoints.get_endpoint(connection, endpoint_id, project_id=project_id)
    with gateway.webhook_tests.slot(project_id):
        return endpoint, await gateway.sender.test(endpoint, known, longest_s=longest_s)
