"""Events for registered endpoints, and the rotation of their secrets."""

from typing import Any

import pytest
from fakes.receiver import Receiver
from harness import Running
from openai import AsyncOpenAI, InvalidWebhookSignatureError
from webhooks.registration import HOUR_S, TYPES, cancelled, log_of, post, register, sdk_of, verified

from app.webhooks import signing

pytestmark = pytest.mark.anyio


async def test_each_end_is_delivered_once_to_the_endpoints_that_registered_for_it(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    """An endpoint that does not know `video.cancelled` sees that as `video.failed`, as OpenAI's clients do."""
    both = await register(gateway, f"{hook}/openai", ["video.completed", "video.failed"])
    await register(gateway, f"{hook}/all")
    await register(gateway, f"{hook}/completed", ["video.completed"])
    await post(gateway.bob, "/v1/webhook_endpoints", name="bob's", url=f"{hook}/bob", event_types=TYPES)
    expected = set()
    for model, kinds in (
        ("testcard", {"openai": "completed", "all": "completed", "completed": "completed"}),
        ("reject", {"openai": "failed", "all": "failed"}),
        ("slow", {"openai": "failed", "all": "cancelled"}),
    ):
        if model == "slow":
            video_id = await cancelled(gateway)
            await gateway.worker.run_once()
        else:
            video_id = (await gateway.create(model=f"sandbox/{model}", seconds=1, size="64x64"))["id"]
            await gateway.finish(video_id)
        expected |= {(f"/hook/{path}", f"video.{kind}", video_id) for path, kind in kinds.items()}
    got = [(r.path, r.json["type"], r.json["data"]["id"]) for r in receiver.received]
    assert sorted(got) == sorted(expected)
    assert len({received.id for received in receiver.received}) == len(got)
    for _, _, video_id in expected:  # one event, whatever the number of endpoints
        assert len({r.json["id"] for r in receiver.received if r.json["data"]["id"] == video_id}) == 1

    first = next(r for r in receiver.received if r.path == "/hook/openai")
    assert first.body.decode() == (
        f'{{"id":"{first.json["id"]}","object":"event","created_at":{first.json["created_at"]},'
        f'"type":"video.completed","data":{{"id":"{first.json["data"]["id"]}"}}}}'
    )
    assert first.headers["content-type"] == "application/json"
    assert first.headers["user-agent"].startswith("video-gateway/")
    async with AsyncOpenAI(api_key="x") as client:
        event: Any = client.webhooks.unwrap(first.body, first.headers, secret=both["signing_secret"])
        assert (event.type, event.data.id) == ("video.completed", first.json["data"]["id"])
    (delivery, *_) = [entry for entry in await log_of(gateway, both) if entry["event_type"] == "video.completed"]
    (attempt,) = delivery.pop("tries")
    assert delivery == {
        "id": first.id,
        "object": "webhook_delivery",
        "event_id": first.json["id"],
        "event_type": "video.completed",
        "video_id": first.json["data"]["id"],
        "webhook_endpoint_id": both["id"],
        "state": "delivered",
        "created_at": first.json["created_at"],
        "next_try_at": None,
        "ended_at": first.json["created_at"],
    }
    assert attempt.pop("duration_ms") >= 0
    assert attempt == {"at": first.json["created_at"], "status_code": 204, "answer": "", "error": None}


async def test_a_rotated_secret_signs_on_for_a_day_when_asked(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    async with sdk_of(gateway) as client:
        rotated = await client.webhooks.rotate_secret(endpoint["id"], keep_old_secret_active_for_24_hours=True)
        await cancelled(gateway)
        await gateway.worker.run_once()
        for secret in (endpoint["signing_secret"], rotated.signing_secret):
            assert verified(client, receiver.received[0], secret).type == "video.cancelled"
    gateway.clock.advance(24 * HOUR_S)
    await cancelled(gateway)
    await gateway.worker.run_once()
    last = receiver.received[-1]
    expected = signing.sign(rotated.signing_secret, last.id, int(last.headers["webhook-timestamp"]), last.body)
    assert last.headers["webhook-signature"] == expected


async def test_a_rotated_secret_is_over_otherwise(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    path = f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret"
    rotated = (await gateway.client.post(path)).json()  # no body at all is fine
    await cancelled(gateway)
    await gateway.worker.run_once()
    (received,) = receiver.received
    assert len(received.headers["webhook-signature"].split()) == 1
    async with AsyncOpenAI(api_key="x") as client:
        verified(client, received, rotated["signing_secret"])
        with pytest.raises(InvalidWebhookSignatureError):
            verified(client, received, endpoint["signing_secret"])


async def test_a_deleted_endpoint_gets_nothing(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    assert (await gateway.client.delete(f"/v1/webhook_endpoints/{endpoint['id']}")).status_code == 200
    await gateway.worker.run_once()
    assert receiver.received == []
