"""Webhooks: registered and per request, signed as the SDK verifies it, sent until they arrive, and never inwards."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa
from fakes.receiver import Flood, Received, Receiver
from fakes.server import Answer, Fault, Hang, Reset, closed_port, serve
from harness import ALICE, BOB, ORIGIN, Running, StartGateway, another_worker
from openai import AsyncOpenAI, InvalidWebhookSignatureError
from processes import served

from app import ids
from app.db.models import Delivery
from app.dialects import WEBHOOK_STYLES, lumen
from app.http.create import create_job, new_video_id
from app.http.uploads import Uploads
from app.video import VideoRequest, Webhook
from app.webhooks import deliveries, endpoints, signing

pytestmark = pytest.mark.anyio

TYPES = ["video.completed", "video.failed", "video.cancelled"]
HOUR_S = 3_600


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hook(receiver: Receiver) -> AsyncIterator[str]:
    async with serve(receiver) as url:
        yield f"{url}/hook"


@asynccontextmanager
async def sdk_of(gateway: Running, key: str = ALICE, mount: str = "/v1") -> AsyncIterator[AsyncOpenAI]:
    async with serve(gateway.app) as url, AsyncOpenAI(base_url=url + mount, api_key=key, max_retries=0) as client:
        yield client


async def register(gateway: Running, url: str, types: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    body = {"name": "mine", "url": url, "event_types": types or TYPES, **fields}
    response = await gateway.client.post("/v1/webhook_endpoints", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def post(client: httpx.AsyncClient, path: str, status: int = 200, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def get(gateway: Running, path: str) -> Any:
    response = await gateway.client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def cancelled(gateway: Running, **fields: Any) -> str:
    """A video that ends at once; returns its id."""
    video = await gateway.create(model="sandbox/slow", **fields)
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    return str(video["id"])


async def log_of(gateway: Running, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}/deliveries"))["data"]
    return found


def verified(client: AsyncOpenAI, received: Received, secret: str) -> Any:
    return client.webhooks.unwrap(received.body, received.headers, secret=secret)


# Signatures

OPENAIS_BODY = (
    '{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": '
    '"response.completed", "data": {"id": "resp_123"}}'
)


@pytest.mark.parametrize(
    ("secret", "webhook_id", "timestamp", "body", "signature"),
    [
        (
            "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=",
            "wh_685c059ae39c8190af8c71ed1022a24d",
            1750861210,
            OPENAIS_BODY,
            "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
        ),
        (
            "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "msg_1",
            1758941485,
            '{"id":"evt_1","object":"event","created_at":1758941485,"type":"video.completed","data":{"id":"video_1"}}',
            "v1,GDCsfAPEVAC7sYiwUiXdp2Hnldoha/yoF6Oc7wAUWBg=",
        ),
    ],
    ids=["OpenAI's", "ours"],
)
def test_signature_vectors(secret: str, webhook_id: str, timestamp: int, body: str, signature: str) -> None:
    assert signing.sign(secret, webhook_id, timestamp, body.encode()) == signature


def test_signature_vector_of_lumen() -> None:
    body = b'{"id":"v1a2b3","status":"succeeded","data":[{"url":"https://video.example/a.mp4"}]}'
    expected = "sha256=dd46eb5ff05fb8c55fe4fb86f5ac3f1f8a19dd5a715aee753548d20fa0ffcb22"
    assert lumen.signature("your-secret", body) == expected
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert lumen.WEBHOOK_STYLE.sign(["your-secret"], "wh_1", body, now) == {
        "x-lumen-timestamp": str(int(now.timestamp())),
        "x-lumen-signature": expected,
    }


def test_a_secret_without_prefix_counts_as_it_is() -> None:
    expected = hmac.digest(b"plain secret", b"wh_1.7.{}", hashlib.sha256)
    assert signing.sign("plain secret", "wh_1", 7, b"{}") == f"v1,{base64.b64encode(expected).decode()}"


# The REST resource, by the SDK


@pytest.mark.parametrize("mount", ["/v1", "/openai/v1"])
async def test_the_life_of_an_endpoint_by_the_sdk(gateway: Running, mount: str) -> None:
    async with sdk_of(gateway, mount=mount) as client:
        types = await client.webhooks.event_types.list()
        assert types.to_dict() == {"object": "list", "data": TYPES}
        made = await client.webhooks.create(
            event_types=["video.completed", "video.failed"], name="mine", url="https://example.com/hook"
        )
        now = int(gateway.clock().timestamp())
        secret = made.signing_secret
        assert secret.startswith("whsec_")
        shown = {
            "id": made.id,
            "object": "webhook_endpoint",
            "name": "mine",
            "url": "https://example.com/hook",
            "event_types": ["video.completed", "video.failed"],
            "created_at": now,
            "updated_at": now,
            "signing_secret_hint": f"whsec_...{secret[-4:]}",
            "enabled": True,
            "disabled_reason": None,
            "failing_since": None,
        }
        assert made.to_dict() == {**shown, "signing_secret": secret}
        assert (await client.webhooks.retrieve(made.id)).to_dict() == shown

        gateway.clock.advance(60)
        same = await client.webhooks.update(made.id, name="mine", url="https://example.com/hook")
        assert same.to_dict() == shown
        changed = await client.webhooks.update(made.id, name=" other ", event_types=["video.failed", "video.failed"])
        shown |= {"name": "other", "event_types": ["video.failed"], "updated_at": now + 60}
        assert changed.to_dict() == shown

        rotated = await client.webhooks.rotate_secret(made.id)
        assert rotated.signing_secret != secret
        assert rotated.signing_secret_hint == f"whsec_...{rotated.signing_secret[-4:]}"
        deleted = await client.webhooks.delete(made.id)
        assert deleted.to_dict() == {"id": made.id, "object": "webhook_endpoint.deleted", "deleted": True}
        with pytest.raises(openai.NotFoundError):
            await client.webhooks.retrieve(made.id)


async def test_the_list_is_paged_newest_first_and_shows_no_secret(gateway: Running) -> None:
    made = [await register(gateway, f"https://example.com/{n}") for n in range(5)]
    async with sdk_of(gateway) as client:
        listed = [endpoint async for endpoint in client.webhooks.list(limit=2)]
    assert [endpoint.id for endpoint in listed] == [endpoint["id"] for endpoint in reversed(made)]
    page = await get(gateway, "/v1/webhook_endpoints?limit=2")
    assert page["has_more"] is True
    assert (page["first_id"], page["last_id"]) == (made[4]["id"], made[3]["id"])
    everything = json.dumps([page, *(endpoint.to_dict() for endpoint in listed)])
    assert not [endpoint for endpoint in made if endpoint["signing_secret"] in everything]
    empty = await get(gateway, f"/v1/webhook_endpoints?after={made[0]['id']}")
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_a_test_event_is_sent_at_once_and_verified_by_the_sdk(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    async with sdk_of(gateway) as client:
        endpoint = await client.webhooks.create(event_types=["video.completed"], name="mine", url=hook)
        receiver.script(Answer(200), Answer(500, "oops"))
        for status in (200, 500):
            result = await client.webhooks.test(endpoint.id, event_type="video.failed")
            assert result.to_dict() == {
                "object": "webhook_endpoint.test",
                "event_type": "video.failed",
                "status_code": status,
                "success": True,
                "webhook_endpoint_id": endpoint.id,
            }
        event = verified(client, receiver.received[0], endpoint.signing_secret)
        assert (event.type, event.data.id) == ("video.failed", "video_" + "0" * 26)
        with pytest.raises(InvalidWebhookSignatureError):
            verified(client, receiver.received[0], signing.mint_secret())
        assert await log_of(gateway, endpoint.to_dict()) == []

        await client.webhooks.update(endpoint.id, url=closed_port())
        with pytest.raises(openai.BadRequestError, match="could not be called: no answer: ") as caught:
            await client.webhooks.test(endpoint.id, event_type="video.failed")
        assert caught.value.code == "webhook_endpoint_unreachable"


BAD_URLS = [
    "",
    " ",
    "example.com/hook",
    "ftp://example.com/",
    "//example.com/",
    "http://",
    "http:///path",
    "https://user:password@example.com/",
    "https://user@example.com/",
    "https://exa mple.com/",
    "https://example.com/\n",
    "https://[::1",
    "https://example.com:99999/",
    "https://%31/",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "https://example.com/" + "x" * 2_048,
    7,
    None,
    ["https://example.com/"],
]


@pytest.mark.parametrize("url", BAD_URLS, ids=lambda url: repr(url)[:30])
async def test_addresses_that_are_none(gateway: Running, url: Any) -> None:
    given = {"name": "x", "event_types": TYPES, "url": url}
    error = (await post(gateway.client, "/v1/webhook_endpoints", 400, **given))["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "url")
    endpoint = await register(gateway, "https://example.com/")
    if url is not None:
        await post(gateway.client, f"/v1/webhook_endpoints/{endpoint['id']}", 400, url=url)
    if url not in (None, ""):  # which say, here, that there is none
        error = (await post(gateway.client, "/v1/videos", 400, prompt="p", webhook_url=url))["error"]
        assert error["param"] == "webhook_url"
        assert (await get(gateway, "/v1/videos"))["data"] == []


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({"name": ""}, "name", "1 to 100"),
        ({"name": "x" * 101}, "name", "1 to 100"),
        ({"name": None}, "name", "string"),
        ({"event_types": []}, "event_types", "at least one"),
        ({"event_types": ["batch.completed"]}, "event_types", "video.completed, video.failed, video.cancelled"),
        ({"event_types": "video.failed"}, "event_types", "list"),
    ],
)
async def test_endpoints_that_make_no_sense(gateway: Running, given: dict[str, Any], param: str, said: str) -> None:
    body = {"name": "x", "url": "https://example.com/", "event_types": TYPES, **given}
    error = (await post(gateway.client, "/v1/webhook_endpoints", 400, **body))["error"]
    assert error["param"] == param
    assert said in error["message"]


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a", "", " ", 5, "x" * 513], ids=lambda secret: repr(secret)[:20])
async def test_secrets_that_cannot_sign(gateway: Running, secret: Any) -> None:
    given = {"prompt": "p", "webhook_url": "https://example.com/", "webhook_secret": secret}
    assert (await post(gateway.client, "/v1/videos", 400, **given))["error"]["param"] == "webhook_secret"


async def test_there_is_an_end_to_endpoints(gateway: Running) -> None:
    for _ in range(endpoints.MAX_ENDPOINTS):
        await register(gateway, "https://example.com/")
    body = {"name": "x", "url": "https://example.com/", "event_types": TYPES}
    error = (await post(gateway.client, "/v1/webhook_endpoints", 400, **body))["error"]
    assert "50 endpoints already" in error["message"]


async def test_another_owners_endpoint_is_not_there(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    (delivery,) = await log_of(gateway, endpoint)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    video = f"/v1/videos/{delivery['video_id']}"
    answers = [
        await gateway.bob.get(path),
        await gateway.bob.post(path, json={"name": "bob's"}),
        await gateway.bob.delete(path),
        await gateway.bob.post(f"{path}/rotate_secret", json={}),
        await gateway.bob.post(f"{path}/test", json={"event_type": "video.failed"}),
        await gateway.bob.get(f"{path}/deliveries"),
        await gateway.bob.post(f"{path}/deliveries/{delivery['id']}/redeliver"),
        await gateway.bob.post(f"{video}/deliveries/{delivery['id']}/redeliver"),
        await gateway.client.get("/v1/webhook_endpoints/whe_nonsense"),
        await gateway.client.post(f"{path}/deliveries/wh_nonsense/redeliver"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert (await gateway.bob.get("/v1/webhook_endpoints")).json()["data"] == []
    assert (await gateway.bob.get(f"{video}/deliveries")).json()["data"] == []
    assert len(receiver.received) == 1
    assert (await get(gateway, path))["name"] == "mine"
    secrets = [(await client.get("/v1/webhooks/secret")).json()["key"] for client in (gateway.client, gateway.bob)]
    assert secrets[0] != secrets[1]
    assert (await get(gateway, "/openai/v1/webhooks/secret"))["key"] == secrets[0]


# Events of registered endpoints


async def test_each_end_is_told_once_to_whom_it_concerns(gateway: Running, receiver: Receiver, hook: str) -> None:
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
    for _, _, video_id in expected:  # one event, whoever it is told to
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


# Addresses given with a request


async def owners_secret(gateway: Running) -> str:
    return str((await get(gateway, "/v1/webhooks/secret"))["key"])


async def test_request_is_told_of_completion_with_a_link_that_plays(
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
        unwrapped = verified(client, received, await owners_secret(gateway))
        assert (unwrapped.type, unwrapped.data.id) == ("video.completed", video["id"])


@pytest.mark.parametrize("operation", ["create", "remix", "extensions"])
async def test_request_is_told_of_failure_under_its_own_secret(
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
            verified(client, received, await owners_secret(gateway))
    async with gateway.gateway.db.transaction() as session:
        requests = (await session.scalars(sa.text("select request -> 'extra' from videos"))).all()
    assert set(map(str, requests)) == {"{}"}


async def test_request_is_told_of_being_cancelled(gateway: Running, receiver: Receiver, hook: str) -> None:
    video_id = await cancelled(gateway, webhook_url=hook)
    await gateway.worker.run_once()
    (received,) = receiver.received
    assert received.json["type"] == "video.cancelled"
    assert received.json["data"]["status"] == "failed"
    assert received.json["data"]["error"]["code"] == "cancelled"
    assert received.json["data"]["id"] == video_id


async def test_a_deleted_video_is_told_of_all_the_same(gateway: Running, receiver: Receiver, hook: str) -> None:
    given = {"webhook_url": hook, "webhook_secret": "a secret of its own"}
    video_id = await cancelled(gateway, **given)
    receiver.script(Answer(500))
    await gateway.worker.run_once()
    assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
    gateway.clock.advance(60)
    await gateway.worker.run_once()
    assert (await gateway.client.get(f"/v1/videos/{video_id}")).status_code == 404
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    # and then nothing of it is kept
    async with gateway.gateway.db.transaction() as session:
        assert (await session.execute(sa.text("select video, secret from deliveries"))).all() == [(None, None)]
    path = f"/v1/videos/{video_id}/deliveries/{first.id}/redeliver"
    assert (await post(gateway.client, path, 409))["error"]["code"] == "video_deleted"


async def test_deleting_a_video_forgets_what_was_said(gateway: Running, receiver: Receiver, hook: str) -> None:
    video_id = await cancelled(gateway, webhook_url=hook, webhook_secret="a secret of its own")
    await gateway.worker.run_once()
    (entry,) = (await get(gateway, f"/v1/videos/{video_id}/deliveries"))["data"]
    assert (entry["state"], entry["webhook_endpoint_id"], len(entry["tries"])) == ("delivered", None, 1)
    await post(gateway.client, f"/v1/videos/{video_id}/deliveries/{entry['id']}/redeliver", 202)
    await gateway.worker.run_once()
    assert len(receiver.received) == 2
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


# Getting it there

FAULTS: list[tuple[str, Fault | None, int | None, str]] = [
    ("500", Answer(500, "broken \x00 here"), 500, "answered 500"),
    ("404", Answer(404), 404, "answered 404"),
    ("302", Answer(302, headers={"location": "http://127.0.0.2:9/"}), 302, "answered 302; redirects are not followed"),
    ("reset", Reset(), None, "no answer: "),
    ("nothing", None, None, "no answer: "),
    ("hangs", Hang(), None, "no answer within 0.3 s"),
]


@pytest.mark.parametrize(("fault", "status", "error"), [entry[1:] for entry in FAULTS], ids=[e[0] for e in FAULTS])
async def test_receiver_that_fails_is_tried_again_under_the_same_id(
    start_gateway: StartGateway, receiver: Receiver, hook: str, fault: Fault | None, status: int | None, error: str
) -> None:
    async with start_gateway(webhook_timeout_s=0.3) as gateway:
        endpoint = await register(gateway, hook if fault else closed_port())
        if fault:
            receiver.script(fault)
        await cancelled(gateway)
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        (first,) = delivery["tries"]
        assert delivery["state"] == "pending"
        assert (first["status_code"], first["at"]) == (status, int(gateway.clock().timestamp()))
        assert first["error"].startswith(error)
        assert first["answer"] == (("broken  here" if status == 500 else "") if status else None)
        assert (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}"))["failing_since"] == first["at"]
        await post(gateway.client, f"/v1/webhook_endpoints/{endpoint['id']}", url=hook)

        await gateway.worker.run_once()  # not due yet
        assert len((await log_of(gateway, endpoint))[0]["tries"]) == 1
        gateway.clock.advance(6)
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        assert delivery["state"] == "delivered"
        assert [entry["status_code"] for entry in delivery["tries"]] == [status, 204]
        assert {received.id for received in receiver.received} == {delivery["id"]}
        assert len({received.body for received in receiver.received}) == 1
        assert (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}"))["failing_since"] is None


async def test_redirect_leads_nowhere(gateway: Running, receiver: Receiver, hook: str) -> None:
    elsewhere = Receiver()
    async with serve(elsewhere, host="127.0.0.2") as url:
        receiver.always = Answer(307, headers={"location": f"{url}/inside"})
        await register(gateway, hook)
        await cancelled(gateway)
        await gateway.worker.run_once()
    assert (len(receiver.received), elsewhere.received) == (1, [])


@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_answer_is_not_read_to_its_end(
    gateway: Running, receiver: Receiver, hook: str, status: int
) -> None:
    flood = Flood(status)
    receiver.script(flood)
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    (delivery,) = await log_of(gateway, endpoint)
    assert delivery["tries"][0]["answer"] == "z" * 2_048
    assert delivery["tries"][0]["status_code"] == status
    assert delivery["state"] == ("delivered" if status == 200 else "pending")
    async with asyncio.timeout(10):
        await flood.cut_off.wait()


async def test_gaps_grow_for_72_hours_then_the_endpoint_is_disabled_until_enabled(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    endpoint = await register(gateway, hook)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    receiver.always = Answer(503, "down for maintenance")
    start = gateway.clock()
    await cancelled(gateway)
    moments = []
    for _ in range(50):
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        moments.append((gateway.clock() - start).total_seconds())
        if delivery["state"] != "pending":
            break
        async with gateway.gateway.db.transaction() as session:
            gateway.clock.now = await session.scalar(sa.text("select due_at from deliveries"))
    assert delivery["state"] == "failed"
    assert len(delivery["tries"]) == len(moments) == len(receiver.received)
    assert moments[-1] == 72 * HOUR_S
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    expected = [*deliveries.GAPS_S, *[deliveries.GAPS_S[-1]] * len(gaps)]
    assert all(0.89 * e <= gap <= 1.11 * e for gap, e in zip(gaps[:-1], expected, strict=False))
    assert 14 <= len(moments) <= 19
    assert {received.id for received in receiver.received} == {delivery["id"]}

    shown = await get(gateway, path)
    assert shown["enabled"] is False
    assert shown["disabled_reason"] == (
        f"nothing was delivered since {start:%Y-%m-%d %H:%M} UTC; the last try: answered 503"
    )
    receiver.always = None
    count = len(receiver.received)
    await cancelled(gateway)  # not told, now or later
    await gateway.worker.run_once()
    again = f"{path}/deliveries/{delivery['id']}/redeliver"
    assert (await post(gateway.client, again, 409))["error"]["code"] == "webhook_endpoint_disabled"

    assert (await post(gateway.client, path, enabled=True))["enabled"] is True
    assert (await get(gateway, path))["disabled_reason"] is None
    await gateway.worker.run_once()
    assert len(receiver.received) == count
    told = await cancelled(gateway)
    await gateway.worker.run_once()
    assert receiver.received[-1].json["data"]["id"] == told

    assert (await post(gateway.client, again, 202))["state"] == "pending"
    await gateway.worker.run_once()
    assert receiver.received[-1].id == delivery["id"]
    assert (await log_of(gateway, endpoint))[-1]["state"] == "delivered"


async def test_a_success_in_between_keeps_an_endpoint_alive(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    receiver.always = Answer(500)
    await cancelled(gateway)
    for hour in range(80):
        await gateway.worker.run_once()
        if hour == 40:
            receiver.script(Answer(200))
            await cancelled(gateway)
            await gateway.worker.run_once()
        gateway.clock.advance(HOUR_S)
    assert (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}"))["enabled"] is True
    assert [entry["state"] for entry in await log_of(gateway, endpoint)] == ["delivered", "failed"]


async def test_a_new_address_or_its_owner_enables_an_endpoint(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    await cancelled(gateway)
    off = await post(gateway.client, path, enabled=False)
    assert (off["enabled"], off["disabled_reason"]) == (False, "disabled by its owner")
    await gateway.worker.run_once()
    await cancelled(gateway)
    await gateway.worker.run_once()
    assert receiver.received == []
    assert [entry["state"] for entry in await log_of(gateway, endpoint)] == ["failed"]
    assert (await post(gateway.client, path, name="renamed"))["enabled"] is False
    assert (await post(gateway.client, path, url=f"{hook}/new"))["enabled"] is True
    await cancelled(gateway)
    await gateway.worker.run_once()
    assert [received.path for received in receiver.received] == ["/hook/new"]


async def test_delivered_once_more_by_hand(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    gateway.clock.advance(90)
    (delivery,) = await log_of(gateway, endpoint)
    path = f"/v1/webhook_endpoints/{endpoint['id']}/deliveries/{delivery['id']}/redeliver"
    async with sdk_of(gateway) as client:
        answer: Any = await client.post(path.removeprefix("/v1"), cast_to=object)
        assert (answer["id"], answer["state"], answer["ended_at"]) == (delivery["id"], "pending", None)
    receiver.script(Answer(500))
    await gateway.worker.run_once()
    gateway.clock.advance(6)
    await gateway.worker.run_once()
    (delivery,) = await log_of(gateway, endpoint)
    assert [entry["status_code"] for entry in delivery["tries"]] == [204, 500, 204]
    assert delivery["state"] == "delivered"
    assert {received.id for received in receiver.received} == {delivery["id"]}


# Processes that die, and many at once


async def test_event_is_as_safe_as_the_end_it_tells_of(
    start_gateway: StartGateway, receiver: Receiver, hook: str
) -> None:
    """One process ends the video and is gone; another delivers."""
    async with start_gateway() as gateway:
        endpoint = await register(gateway, hook)
        video_id = await cancelled(gateway)
        (before,) = await log_of(gateway, endpoint)
        assert (before["state"], before["tries"]) == ("pending", [])
    async with start_gateway() as gateway:
        await gateway.worker.run_once()
        (received,) = receiver.received
        assert (received.id, received.json["data"]["id"]) == (before["id"], video_id)
        assert received.json["id"] == before["event_id"]


async def test_worker_that_dies_in_the_middle_of_a_call_is_taken_over_from(
    start_gateway: StartGateway, receiver: Receiver, hook: str
) -> None:
    hang = Hang()
    receiver.script(hang)
    async with start_gateway(shutdown_grace_s=0) as gateway:
        endpoint = await register(gateway, hook)
        await cancelled(gateway)
        running = asyncio.create_task(gateway.worker.run())
        await hang.reached.wait()
        gateway.worker.stop()
        await running
    async with start_gateway() as gateway:
        await gateway.worker.run_once()
        assert len(receiver.received) == 1  # the lease is not over
        gateway.clock.advance(15 + 60)
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        assert [received.id for received in receiver.received] == [delivery["id"]] * 2
        assert delivery["state"] == "delivered"


@pytest.mark.slow
async def test_process_killed_in_the_middle_of_a_call(
    database_url: str, tmp_path: Path, receiver: Receiver, hook: str
) -> None:
    hang = Hang()
    receiver.script(hang)
    settings = {
        "database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE, "pepper": "pepper",
        "allow_networks": "127.0.0.0/8", "worker_tick_s": 0.05, "webhook_timeout_s": 3, "lease_s": 5,
    }  # fmt: skip
    async with served(cwd=tmp_path, **settings) as gateway:
        video_id = await gateway.create(model="sandbox/reject", webhook_url=hook)
        await hang.reached.wait()
        gateway.child.kill()
        await gateway.child.end()
    async with served(cwd=tmp_path, **settings):
        await receiver.wait_for(2)
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert second.json["data"]["id"] == video_id


async def test_result_of_a_worker_that_was_given_up_does_not_count(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    """The first worker's call comes back after the second has delivered."""
    hang = Hang()
    receiver.script(hang)
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    slow = asyncio.create_task(gateway.worker.run_once())
    await hang.reached.wait()
    gateway.clock.advance(15 + 60)
    async with another_worker(gateway) as other:
        await other.run_once()
    hang.release.set()
    await slow
    (delivery,) = await log_of(gateway, endpoint)
    assert (delivery["state"], [entry["status_code"] for entry in delivery["tries"]]) == ("delivered", [204])


async def test_two_workers_deliver_each_event_once(gateway: Running, receiver: Receiver, hook: str) -> None:
    await register(gateway, hook)
    await cancelled(gateway)
    await multiply(gateway, 300)
    async with another_worker(gateway) as other:
        await asyncio.gather(gateway.worker.run_once(), other.run_once())
    got = [received.id for received in receiver.received]
    assert len(got) == len(set(got)) == 301


async def multiply(gateway: Running, times: int) -> None:
    """That many more events like the one that waits, each of a video of its own."""
    async with gateway.gateway.db.transaction() as session:
        columns = [c for c in Delivery.__table__.columns.keys() if c not in ("id", "video_id")]  # noqa: SIM118
        names = ", ".join(columns)
        await session.execute(
            sa.text(
                f"insert into deliveries (id, video_id, {names})"
                f" select id || '-' || n, video_id || n, {names} from deliveries, generate_series(1, :times) as n"
            ),
            {"times": times},
        )


@pytest.mark.parametrize("whose", ["another project", "the same project", "a request of the same project"])
async def test_ten_thousand_to_a_dead_endpoint_do_not_delay_another(
    start_gateway: StartGateway, receiver: Receiver, hook: str, whose: str
) -> None:
    """The dead one accepts connections and never answers, which is the worst kind."""
    dead = Receiver(always=Hang())
    settings = {"webhook_concurrency": 20, "webhook_timeout_s": 60, "worker_tick_s": 0.02, "shutdown_grace_s": 0}
    async with serve(dead) as dead_url, start_gateway(**settings) as gateway:
        await register(gateway, dead_url)
        await cancelled(gateway)
        await multiply(gateway, 10_000)
        running = asyncio.create_task(gateway.worker.run())
        await dead.wait_for(4)
        given = {}
        client = gateway.bob if whose == "another project" else gateway.client
        if whose == "a request of the same project":
            given = {"webhook_url": hook}
        else:
            await post(client, "/v1/webhook_endpoints", name="x", url=hook, event_types=TYPES)
        body = {"prompt": "p", "model": "sandbox/slow", **given}
        video_id = (await post(client, "/v1/videos", 202, **body))["id"]
        await client.delete(f"/v1/videos/{video_id}")
        async with asyncio.timeout(5):
            await receiver.wait_for(1)
        assert receiver.received[0].json["data"]["id"] == video_id
        assert len(dead.received) == 4  # a fifth of the places
        gateway.worker.stop()
        await running


async def test_a_project_with_many_dead_addresses_does_not_delay_another(gateway: Running) -> None:
    """Projects take turns, and a project that has many under way comes after one that has none."""
    await register(gateway, "http://127.0.0.1:9/")
    await cancelled(gateway)
    async with gateway.gateway.db.transaction() as session:
        await session.execute(
            sa.text(
                "insert into deliveries (id, video_id, event_id, event_type, project_id, queue_key, url, style, video,"
                " state, due_at, tries, created_at) select 'm' || n, 'v' || n, event_id, event_type, project_id,"
                " 'q' || n, 'http://h/', 'standard', '{}', state, due_at - interval '1 hour', 0, created_at"
                " from deliveries, generate_series(1, 2000) as n"
            )
        )
        await session.execute(
            sa.text(
                "insert into deliveries (id, video_id, event_id, event_type, project_id, queue_key, url, style, video,"
                " state, due_at, tries, created_at) select 'bob', 'bob', event_id, event_type, 'bob', 'q',"
                " 'http://h/', 'standard', '{}', state, due_at, 0, created_at from deliveries limit 1"
            )
        )
    async with gateway.gateway.db.transaction() as session:
        claimed = [
            [
                delivery.project_id
                for delivery in await deliveries.claim_deliveries(
                    session, slots, share=10, lease_s=60, now=gateway.clock()
                )
            ]
            for slots in (10, 10)
        ]
    assert "bob" in claimed[0]
    assert len(claimed[0]) == len(claimed[1]) == 10


# Where nothing goes

INWARD = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://2130706433:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::a00:1]/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://[fd00::1]/",
    "http://0.0.0.0:{port}/",
]


@pytest.mark.parametrize("way", ["endpoint", "request", "test"])
async def test_nothing_is_sent_inwards(start_gateway: StartGateway, receiver: Receiver, hook: str, way: str) -> None:
    port = httpx.URL(hook).port
    async with start_gateway(allow_networks=[]) as gateway:
        for template in INWARD:
            url = template.format(port=port)
            if way == "test":
                endpoint = await register(gateway, url)
                path = f"/v1/webhook_endpoints/{endpoint['id']}/test"
                said = (await post(gateway.client, path, 400, event_type="video.failed"))["error"]["message"]
                assert "is not a public address, so nothing was sent" in said, url
            elif way == "endpoint":
                await register(gateway, url)
            else:
                await cancelled(gateway, webhook_url=url)
        if way == "test":
            return
        if way == "endpoint":
            await cancelled(gateway)
        await gateway.worker.run_once()
        async with gateway.gateway.db.transaction() as session:
            query = "select state, error, status from deliveries join delivery_tries on delivery_id = deliveries.id"
            tries = (await session.execute(sa.text(query))).all()
    assert len(tries) == len(INWARD)
    for state, error, status in tries:
        assert (state, status) == ("pending", None)  # tried again: a name may lead elsewhere by then
        assert "is not a public address, so nothing was sent" in error
    assert receiver.received == []


async def test_name_that_changes_its_address_after_the_check_gains_nothing(
    start_gateway: StartGateway, receiver: Receiver, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks first is told an allowed address, whoever asks again the one behind the wall."""
    inside: list[object] = []
    really, asked = socket.getaddrinfo, 0

    def rebinding(host: Any, port: Any, *given: Any, **options: Any) -> Any:
        nonlocal asked
        if host != "rebind.example.com":
            return really(host, port, *given, **options)
        asked += 1
        address = "127.0.0.1" if asked % 2 else "127.0.0.3"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = httpx.URL(hook).port
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(lambda *connection: inside.append(connection), "127.0.0.3", port)
        await stack.enter_async_context(server)
        gateway = await stack.enter_async_context(start_gateway(allow_networks=["127.0.0.1/32"]))
        endpoint = await register(gateway, f"http://rebind.example.com:{port}/")
        await cancelled(gateway)
        await gateway.worker.run_once()
        assert (asked, len(receiver.received), len(inside)) == (1, 1, 0)
        assert receiver.received[0].headers["host"] == f"rebind.example.com:{port}"
        await cancelled(gateway)
        await gateway.worker.run_once()
        (refused, _) = await log_of(gateway, endpoint)
        assert "rebind.example.com is not a public address" in refused["tries"][0]["error"]
        assert (asked, len(receiver.received), len(inside)) == (2, 1, 0)


# What is kept, shown and counted


async def test_old_deliveries_are_forgotten(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    gateway.clock.now += timedelta(days=30)
    await gateway.worker.run_once()
    assert len(await log_of(gateway, endpoint)) == 1
    gateway.clock.advance(1)
    await gateway.worker.run_once()
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
        for secret in ("sekret", endpoint["signing_secret"], await owners_secret(gateway), ALICE, BOB):
            assert secret not in said
        text = (await gateway.client.get("/metrics")).text
        for outcome in ("delivered", "retried"):
            assert f'gateway_webhook_deliveries_total{{outcome="{outcome}"}}' in text
        shown = await gateway.client.get(f"/admin/v1/videos/{video_id}", headers={"authorization": "Bearer admin"})
        assert (shown.status_code, "sekret-secret" in shown.text) == (200, False)
        hooked = Webhook(url="https://example.com/?token=sekret", secret="sekret")
        assert "sekret" not in f"{hooked!r} {hooked}"
