"""The record of deliveries: retention, pages, logs and metrics."""

from datetime import timedelta

import httpx
import pytest
from fakes.receiver import Receiver
from fakes.server import Answer
from harness import ALICE, BOB, Running, StartGateway
from webhooks.registration import cancelled, get, log_of, project_secret, register

from app.video import Webhook

pytestmark = pytest.mark.anyio


async def test_old_deliveries_are_forgotten(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    gateway.clock.now += timedelta(days=30)
    await gateway.worker.run_once()
    assert len(await log_of(gateway, endpoint)) == 1
    gateway.clock.advance(1)
    await gateway.worker.purge()
    assert await log_of(gateway, endpoint) == []


async def test_deliveries_are_paged(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    made = [await cancelled(gateway) for _ in range(5)]
    path = f"/v1/webhook_endpoints/{endpoint['id']}/deliveries?limit=2"
    seen: list[str] = []
    after = ""
    for _ in range(3):
        page = await get(gateway, path + after)
        seen += [entry["video_id"] for entry in page["data"]]
        after = f"&after={page['last_id']}"
    assert page["has_more"] is False
    assert seen == list(reversed(made))


async def test_logs_and_metrics_say_what_happened_and_no_secret(
    start_gateway: StartGateway, receiver: Receiver, hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start_gateway(admin_key="admin") as gateway:
        endpoint = await register(gateway, f"{hook}?token=sekret-in-the-query")
        receiver.script(Answer(500, "sekret-answer"))
        video_id = await cancelled(gateway, webhook_url=f"{hook}?token=sekret-too", webhook_secret="sekret-secret")
        await gateway.worker.run_once()
        gateway.clock.advance(6)
        await gateway.worker.run_once()
        said = "".join(capsys.readouterr())
        assert "webhook delivered" in said
        assert "webhook not delivered" in said
        assert f"127.0.0.1:{httpx.URL(hook).port}" in said
        for secret in ("sekret", endpoint["signing_secret"], await project_secret(gateway), ALICE, BOB):
            assert secret not in said
        text = (await gateway.client.get("/metrics")).text
        for outcome in ("delivered", "retried"):
            assert f'gateway_webhook_deliveries_total{{outcome="{outcome}"}}' in text
        shown = await gateway.client.get(f"/admin/v1/videos/{video_id}", headers={"authorization": "Bearer admin"})
        assert (shown.status_code, "sekret-secret" in shown.text) == (200, False)
        hooked = Webhook(url="https://example.com/?token=sekret", secret="sekret")
        assert "sekret" not in f"{hooked!r} {hooked}"
