"""Callbacks of upstreams: a trigger to poll now and nothing else."""

import hmac
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.kling import FakeKling
from fakes.lumen import FakeLumen
from fakes.lumenfall import FakeLumenfall
from fakes.server import KEY, Fake, serve
from harness import ORIGIN, Running, StartGateway
from upstreams import Upstreams

from app.webhooks.signing import sign

pytestmark = pytest.mark.anyio


async def test_a_callback_only_means_poll_now(start_gateway: StartGateway, two: Upstreams) -> None:
    fake = two.fakes["one"]
    async with start_gateway(providers=two.providers(), public_url=ORIGIN) as gateway:
        video = await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        (attempt,) = await gateway.attempts(video["id"])
        callback = gateway.gateway.links.callback(attempt.id)
        assert callback is not None
        before = len(fake.polls)
        answer = await gateway.client.post(callback, json={"status": "completed", "video": "https://evil.example/x"})
        assert answer.json() == {"received": True}
        await gateway.worker.run_once()
        assert len(fake.polls) == before + 1
        assert (await gateway.get(video["id"]))["status"] == "queued"
        forged = re.sub(r"/[^/]+$", "/" + "A" * 32, callback)
        assert (await gateway.client.post(forged)).status_code == 404
        await gateway.finish(video["id"])
        assert (await gateway.client.post(callback)).json() == {"received": True}


SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
Signing = tuple[str, Running, Fake]
MODELS = {"lumen": "lumen/seedance-2", "lumenfall": "lumenfall/veo-3.1", "kling": "kling/kling-3.0"}
FAKES: dict[str, type[Fake]] = {"lumen": FakeLumen, "lumenfall": FakeLumenfall, "kling": FakeKling}
BODY = json.dumps({"id": "v1", "status": "completed"}).encode()


@pytest.fixture(params=list(FAKES))
async def signing(request: pytest.FixtureRequest, start_gateway: StartGateway) -> AsyncIterator[Signing]:
    """A kind whose vendor signs its callbacks by an HMAC, with a task under way."""
    kind: str = request.param
    fake = FAKES[kind]()
    async with serve(fake) as url:
        config = {"api_key": KEY, "base_url": f"{url}/openai/v1" if kind == "lumenfall" else url}
        config |= {"webhook_secret": SECRET} if kind != "lumen" else {}
        async with start_gateway(providers={kind: config}, public_url=ORIGIN) as gateway:
            await gateway.create(model=MODELS[kind])
            await gateway.worker.run_once()
            yield kind, gateway, fake


def signed(kind: str, gateway: Running, attempt_id: str, body: bytes, *, age_s: int = 0) -> dict[str, str]:
    if kind == "lumen":
        secret = gateway.gateway.links.callback_token(attempt_id)
        return {"x-lumen-signature": f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"}
    timestamp = int(gateway.clock.now.timestamp()) - age_s
    signatures = f"v1,AAAA {sign(SECRET, 'msg_1', timestamp, body)}"
    return {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "webhook-signature": signatures}


async def called(gateway: Running, **request: Any) -> int:
    (video,) = (await gateway.client.get("/v1/videos")).json()["data"]
    (attempt,) = await gateway.attempts(video["id"])
    callback = gateway.gateway.links.callback(attempt.id)
    assert callback is not None
    return (await gateway.client.post(callback, **request)).status_code


async def test_a_signed_callback_is_accepted_and_a_wrong_one_changes_nothing(
    signing: Signing,
) -> None:
    kind, gateway, fake = signing
    (video,) = (await gateway.client.get("/v1/videos")).json()["data"]
    (attempt,) = await gateway.attempts(video["id"])
    headers = signed(kind, gateway, attempt.id, BODY)
    before = len(fake.polls)
    wrong: list[dict[str, Any]] = [
        {},
        {"content": BODY},
        {"content": BODY + b" ", "headers": headers},
        {"content": BODY, "headers": {name: value + "0" for name, value in headers.items()}},
        {"content": BODY, "headers": dict.fromkeys(headers, b"\xe9")},
        {"content": BODY + b" " * 2**20, "headers": headers},
    ]
    if kind != "lumen":
        wrong.append({"content": BODY, "headers": signed(kind, gateway, attempt.id, BODY, age_s=301)})
    assert [await called(gateway, **request) for request in wrong] == [401] * len(wrong)
    await gateway.worker.run_once()
    assert len(fake.polls) == before
    assert await called(gateway, content=BODY, headers=headers) == 200
    await gateway.worker.run_once()
    assert len(fake.polls) == before + 1


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"challenge": "c-1"}', {"challenge": "c-1"}),
        (b'{"challenge": 7}', {"received": True}),
        (b'["challenge"]', {"received": True}),
        (b"[" * 4_000, {"received": True}),
        (b'{"challenge": "' + b"x" * 5_000 + b'"}', {"received": True}),
        (b"challenge=c-1", {"received": True}),
    ],
)
async def test_a_challenge_is_repeated(
    start_gateway: StartGateway, two: Upstreams, body: bytes, answer: dict[str, Any]
) -> None:
    """MiniMax calls an address only after it has repeated a challenge."""
    async with start_gateway(providers=two.providers(), public_url=ORIGIN) as gateway:
        video = await gateway.create(model="one/sora-2")
        (attempt,) = await gateway.attempts(video["id"])
        callback = gateway.gateway.links.callback(attempt.id)
        assert callback is not None
        assert (await gateway.client.post(callback, content=body)).json() == answer
        forged = re.sub(r"/[^/]+$", "/" + "A" * 32, callback)
        assert (await gateway.client.post(forged, content=body)).status_code == 404
