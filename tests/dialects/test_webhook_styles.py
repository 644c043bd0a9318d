"""The dialects of other vendors: webhooks in each vendor's style."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from dialects.vendors import APILAPLAS, LUMA, LUMEN, asked, fresh
from fakes.server import serve
from harness import ORIGIN, Running
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


async def test_webhooks_are_kept_in_each_vendors_style(gateway: Running) -> None:
    address = "https://hooks.example.com/done"
    kept = [
        await asked(gateway, LUMEN, fresh(webhook_url=address, webhook_secret="hush")),
        await asked(gateway, LUMA, {"user_prompt": "a boat", "notify_hook": address}),
        await asked(gateway, APILAPLAS, fresh(callback_url=address)),
    ]
    found = [request.webhook for request in kept if request.webhook is not None]
    assert [(hook.style, hook.url, hook.secret) for hook in found] == [
        ("lumen", address, "hush"),
        ("luma", address, None),
        ("apilaplas", address, None),
    ]
    assert {hook.origin for hook in found} == {ORIGIN}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (LUMEN, {"webhook_url": "{}", "webhook_secret": "your-secret", "duration": 4}),
        (LUMA, {"notify_hook": "{}", "duration": "1s"}),
        (APILAPLAS, {"callback_url": "{}", "duration": "1s"}),
    ],
)
@pytest.mark.parametrize("model", ["sandbox/testcard", "sandbox/fail"])
async def test_a_receiver_is_sent_the_answer_to_a_get(
    gateway: Running, path: str, fields: dict[str, Any], model: str
) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def receiver(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        received.append((dict(request.headers), await request.body()))
        await Response()(scope, receive, send)

    async with serve(receiver) as url:
        given = {name: value.format(url) if isinstance(value, str) else value for name, value in fields.items()}
        body = {"user_prompt" if path == LUMA else "prompt": "a boat", "model": model, "resolution": "240p"}
        created = await gateway.client.post(path, json={**body, "aspect_ratio": "4:3", **given})
        video_id = created.json()["id"]
        await gateway.finish(video_id)
        await gateway.worker.run_once()
        where = f"{APILAPLAS}?generation_id={video_id}" if path == APILAPLAS else f"{path}/{video_id}"
        shown = await gateway.client.get(where)
    [(headers, sent)] = received
    assert json.loads(sent) == shown.json()
    if path == LUMEN:
        digest = hmac.new(b"your-secret", sent, hashlib.sha256).hexdigest()
        assert headers["x-lumen-signature"] == f"sha256={digest}"
        assert int(headers["x-lumen-timestamp"]) == int(gateway.clock().timestamp())
