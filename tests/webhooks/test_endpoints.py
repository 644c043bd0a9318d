"""Webhook endpoints as a REST resource, called by the OpenAI SDK."""

import json
from typing import Any

import openai
import pytest
from fakes.receiver import Receiver
from fakes.server import Answer, closed_port
from harness import Running
from openai import InvalidWebhookSignatureError
from webhooks.registration import TYPES, cancelled, get, log_of, post, register, sdk_of, verified

from app.webhooks import endpoints, signing

pytestmark = pytest.mark.anyio


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
async def test_invalid_urls_are_refused(gateway: Running, url: Any) -> None:
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
        ({"name": None}, "name", "is required"),
        ({"event_types": []}, "event_types", "at least one"),
        ({"event_types": ["batch.completed"]}, "event_types", "video.completed, video.failed, video.cancelled"),
        ({"event_types": "video.failed"}, "event_types", "list"),
    ],
)
async def test_invalid_endpoints_are_refused_by_name(
    gateway: Running, given: dict[str, Any], param: str, said: str
) -> None:
    body = {"name": "x", "url": "https://example.com/", "event_types": TYPES, **given}
    error = (await post(gateway.client, "/v1/webhook_endpoints", 400, **body))["error"]
    assert error["param"] == param
    assert said in error["message"]


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a", "", " ", 5, "x" * 513], ids=lambda secret: repr(secret)[:20])
async def test_secrets_that_cannot_sign_are_refused(gateway: Running, secret: Any) -> None:
    given = {"prompt": "p", "webhook_url": "https://example.com/", "webhook_secret": secret}
    assert (await post(gateway.client, "/v1/videos", 400, **given))["error"]["param"] == "webhook_secret"


async def test_the_number_of_endpoints_is_limited(gateway: Running) -> None:
    for _ in range(endpoints.MAX_ENDPOINTS):
        await register(gateway, "https://example.com/")
    body = {"name": "x", "url": "https://example.com/", "event_types": TYPES}
    error = (await post(gateway.client, "/v1/webhook_endpoints", 400, **body))["error"]
    assert "50 endpoints already" in error["message"]


async def test_an_endpoint_of_another_project_is_a_404(gateway: Running, receiver: Receiver, hook: str) -> None:
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
        await gateway.bob.get(f"{video}/deliveries"),
        await gateway.bob.post(f"{video}/deliveries/{delivery['id']}/redeliver"),
        await gateway.client.get("/v1/webhook_endpoints/whe_nonsense"),
        await gateway.client.post(f"{path}/deliveries/wh_nonsense/redeliver"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert (await gateway.bob.get("/v1/webhook_endpoints")).json()["data"] == []
    assert len(receiver.received) == 1
    assert (await get(gateway, path))["name"] == "mine"
    secrets = [(await client.get("/v1/webhooks/secret")).json()["key"] for client in (gateway.client, gateway.bob)]
    assert secrets[0] != secrets[1]
    assert (await get(gateway, "/openai/v1/webhooks/secret"))["key"] == secrets[0]
