"""Webhooks whose URL came with the request."""

import hashlib
import hmac
import json
from base64 import b64encode

import pytest
import sqlalchemy as sa
from fakes.receiver import Receiver
from fakes.server import Answer
from harness import ALICE, ORIGIN, Running
from openai import AsyncOpenAI, InvalidWebhookSignatureError
from webhooks.registration import cancelled, get, post, project_secret, verified

from app import ids
from app.dialects import WEBHOOK_STYLES
from app.http.create import create_job, new_video_id
from app.http.uploads import Uploads
from app.video import VideoRequest, Webhook
from app.webhooks import signing

pytestmark = pytest.mark.anyio


async def test_a_request_webhook_of_a_completion_has_a_link_that_plays(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    fields = {"model": "sandbox/testcard", "seconds": 1, "size": "64x64"}
    video = await gateway.create(**fields, webhook_url=hook)
    assert "hook" not in json.dumps(video)
    done = await gateway.finish(video["id"])
    assert "hook" not in json.dumps(done)
    (received,) = receiver.received
    event = received.json
    output = event["data"]["output"]
    assert event == {
        "id": event["id"],
        "object": "event",
        "created_at": int(gateway.clock().timestamp()),
        "type": "video.completed",
        "data": {
            "object": "video.generation",
            "id": video["id"],
            "model": "sandbox/testcard",
            "status": "completed",
            "output": {**done["output"], "url": output["url"]},
        },
    }
    assert ids.is_id(event["id"], "evt")
    assert output["url"].startswith(f"{ORIGIN}/media/")
    played = await gateway.client.get(output["url"], headers={"authorization": ""})
    assert played.content[4:8] == b"ftyp"
    async with AsyncOpenAI(api_key="x") as client:
        unwrapped = verified(client, received, await project_secret(gateway))
        assert (unwrapped.type, unwrapped.data.id) == ("video.completed", video["id"])


@pytest.mark.parametrize("operation", ["create", "remix", "extensions"])
async def test_a_request_webhook_of_a_failure_is_signed_with_its_own_secret(
    gateway: Running, receiver: Receiver, hook: str, operation: str
) -> None:
    given = {"webhook_url": hook, "webhook_secret": "whsec_" + "YWJj" * 8}
    if operation == "create":
        video_id = (await gateway.create(model="sandbox/reject", **given))["id"]
        await gateway.worker.run_once()
    else:
        source = (await gateway.create(model="sandbox/testcard", seconds=1, size="64x64"))["id"]
        await gateway.finish(source)
        path = f"/v1/videos/{source}/remix" if operation == "remix" else "/v1/videos/extensions"
        more = {} if operation == "remix" else {"video": {"id": source}, "seconds": 2}
        video_id = (await post(gateway.client, path, 202, prompt="p", **more, **given))["id"]
        await gateway.client.delete(f"/v1/videos/{video_id}")
        await gateway.worker.run_once()
    (received,) = receiver.received
    error = (await gateway.get(video_id))["error"]
    assert received.json["type"] == ("video.failed" if operation == "create" else "video.cancelled")
    assert received.json["data"] == {
        "object": "video.generation",
        "id": video_id,
        "model": "sandbox/reject" if operation == "create" else "sandbox/testcard",
        "status": "failed",
        "error": error,
    }
    async with AsyncOpenAI(api_key="x") as client:
        verified(client, received, given["webhook_secret"])
        with pytest.raises(InvalidWebhookSignatureError):
            verified(client, received, await project_secret(gateway))
    async with gateway.gateway.db.transaction() as session:
        requests = (await session.scalars(sa.text("select request -> 'extra' from videos"))).all()
    assert set(map(str, requests)) == {"{}"}


async def test_a_request_webhook_is_sent_for_a_cancellation(gateway: Running, receiver: Receiver, hook: str) -> None:
    video_id = await cancelled(gateway, webhook_url=hook)
    await gateway.worker.run_once()
    (received,) = receiver.received
    assert received.json["type"] == "video.cancelled"
    assert received.json["data"]["status"] == "failed"
    assert received.json["data"]["error"]["code"] == "cancelled"
    assert received.json["data"]["id"] == video_id


async def test_the_event_of_a_deleted_video_is_still_delivered(gateway: Running, receiver: Receiver, hook: str) -> None:
    given = {"webhook_url": hook, "webhook_secret": "a secret of its own"}
    video_id = await cancelled(gateway, **given)
    receiver.script(Answer(500))
    await gateway.worker.run_once()
    gateway.clock.advance(3_600)  # a cancelled video is kept for an hour
    assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
    await gateway.worker.run_once()
    assert (await gateway.client.get(f"/v1/videos/{video_id}")).status_code == 404
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    # and then nothing of it is kept
    async with gateway.gateway.db.transaction() as session:
        assert (await session.execute(sa.text("select video, secret from deliveries"))).all() == [(None, None)]
    path = f"/v1/videos/{video_id}/deliveries/{first.id}/redeliver"
    assert (await post(gateway.client, path, 409))["error"]["code"] == "video_deleted"


async def test_deleting_a_video_deletes_the_stored_event_data(gateway: Running, receiver: Receiver, hook: str) -> None:
    video_id = await cancelled(gateway, webhook_url=hook, webhook_secret="a secret of its own")
    await gateway.worker.run_once()
    (entry,) = (await get(gateway, f"/v1/videos/{video_id}/deliveries"))["data"]
    assert (entry["state"], entry["webhook_endpoint_id"], len(entry["tries"])) == ("delivered", None, 1)
    await post(gateway.client, f"/v1/videos/{video_id}/deliveries/{entry['id']}/redeliver", 202)
    await gateway.worker.run_once()
    assert len(receiver.received) == 2
    gateway.clock.advance(3_600)  # a cancelled video is kept for an hour
    await gateway.client.delete(f"/v1/videos/{video_id}")
    async with gateway.gateway.db.transaction() as session:
        assert (await session.execute(sa.text("select video, secret from deliveries"))).all() == [(None, None)]


@pytest.mark.parametrize("style", sorted(WEBHOOK_STYLES.keys() - {signing.STANDARD}))
async def test_other_styles_send_an_object_and_sign_their_way(
    gateway: Running, receiver: Receiver, hook: str, style: str
) -> None:
    secret = "your-secret" if style == "lumen" else None
    request = VideoRequest(prompt="p", model="sandbox/reject", webhook=Webhook(url=hook, secret=secret, style=style))
    uploads = Uploads(new_video_id())
    caller = await gateway.gateway.authenticator.authenticate(ALICE)
    await create_job(gateway.gateway, caller, request, uploads, dialect="openai", app=None)
    await gateway.worker.run_once()
    (received,) = receiver.received
    assert received.json["id"] == uploads.video_id
    assert "type" not in received.json
    if secret:
        expected = "sha256=" + hmac.new(secret.encode(), received.body, hashlib.sha256).hexdigest()
        assert received.headers["x-lumen-signature"] == expected
        assert received.headers["x-lumen-timestamp"] == str(int(gateway.clock().timestamp()))
    assert "webhook-signature" not in received.headers
    assert received.headers["content-type"] == "application/json"
    assert ids.is_id(received.headers["webhook-id"], "wh")


STANDARD = ["whsec_" + b64encode(bytes(range(length))).decode() for length in (24, 32, 64)]
OTHER = [
    "a secret of its own",
    "whsec_" + b64encode(bytes(23)).decode(),
    "whsec_" + b64encode(bytes(65)).decode(),
    b64encode(bytes(32)).decode(),
]


@pytest.mark.parametrize("secret", [*STANDARD, *OTHER, None])
async def test_a_secret_that_libraries_cannot_verify_with_is_said(gateway: Running, secret: str | None) -> None:
    given = {"prompt": "p", "webhook_url": "https://example.com/hook"} | ({"webhook_secret": secret} if secret else {})
    warning = (
        "webhook_secret: libraries of Standard Webhooks cannot verify with it; they expect whsec_ and the base 64 of "
        "24 to 64 bytes"
    )
    expected = [warning] if secret in OTHER else None
    video = await post(gateway.client, "/v1/videos", 202, **given)
    assert video.get("warnings") == expected
    assert (await get(gateway, f"/v1/videos/{video['id']}")).get("warnings") == expected
    estimate = await post(gateway.client, "/v1/videos?dryRun=true", 200, **given)
    assert estimate.get("warnings") == expected


async def test_the_secret_of_another_style_needs_no_form(gateway: Running) -> None:
    given = {"webhook_url": "https://example.com/hook", "webhook_secret": "your-secret", "duration": 4}
    body = {"prompt": "p", "model": "sandbox/testcard", **given}
    video = await post(gateway.client, "/v1/videos/generations", 200, **body)
    assert "warnings" not in await get(gateway, f"/v1/videos/{video['id']}")
