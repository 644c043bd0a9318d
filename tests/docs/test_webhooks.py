"""The code in docs/webhooks.md is run: what registers, and what verifies, in Python and in Node."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pages
import pytest
from docs.listening import Listening
from fakes.receiver import Receiver
from fakes.server import Answer, serve
from harness import ALICE, Running
from openai import InvalidWebhookSignatureError
from processes import until
from programs import need
from webhooks.registration import log_of, register

from app.settings import Settings
from app.webhooks import endpoints, events, sender, signing, worker

PAGE = pages.read("docs/webhooks.md")
REGISTER, REQUEST = PAGE.one("python", "webhooks.create"), PAGE.one("python", "extra_body")
WITH_SDK, WITHOUT_SDK = PAGE.one("python", "unwrap"), PAGE.one("python", "def verify")
NODE = PAGE.one("js", "function verify")
EVENT, OUTCOME, DELIVERY = (json.loads(block) for block in PAGE.claim("json"))
BODY = '{"id":"evt_1","object":"event","created_at":1,"type":"video.completed","data":{"id":"video_1 äöü"}}'.encode()


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "docs/webhooks.md", "exec"), names)
    return names


def signed(*secrets: str, age_s: float = 0) -> dict[str, str]:
    now = datetime.fromtimestamp(time.time() - age_s, UTC)
    return {"webhook-id": "wh_1", **signing.standard_headers(secrets, "wh_1", BODY, now)}


SECRETS = [signing.mint_secret(), "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=", "a plain secret"]


@pytest.mark.anyio
async def test_the_registration_example_makes_an_endpoint(gateway: Running) -> None:
    async with serve(gateway.app) as url:
        code = REGISTER.replace("http://localhost:8080", url).replace("vgw_...", ALICE)
        code += REQUEST
        names = await asyncio.to_thread(run, f"{code}client.close()\n")
    assert names["endpoint"].signing_secret.startswith("whsec_")
    (video,) = (await gateway.client.get("/v1/videos")).json()["data"]
    assert video["id"] == names["video"].id


@pytest.mark.anyio
async def test_events_and_deliveries_have_the_documented_fields(listening: Listening) -> None:
    receiver = Receiver(always=Answer(500, "Internal Server Error"))
    async with serve(receiver) as url:
        endpoint = await register(listening.gateway, f"{url}/registered")
        video_id = await listening.finished(seconds=1, size="128x128", webhook_url=f"{url}/asked")
        await receiver.wait_for(2)

        async def tried() -> Any:
            (entry,) = await log_of(listening.gateway, endpoint)
            return entry if entry["tries"] else None

        delivery = await until(tried)
    sent = {received.path: received.json for received in receiver.received}
    assert pages.shape(sent["/registered"]) == pages.shape(EVENT)
    assert pages.shape(sent["/asked"]) == pages.shape(OUTCOME)
    assert {sent[path]["data"]["id"] for path in sent} == {video_id}
    assert pages.shape(delivery) == pages.shape(DELIVERY)


@pytest.mark.parametrize("secret", SECRETS, ids=["minted", "given", "plain"])
def test_the_python_example_with_the_sdk_verifies_signatures(secret: str) -> None:
    names = run(WITH_SDK.replace("whsec_...", secret))
    handle: Callable[..., str] = names["handle"]
    assert handle(BODY, signed(secret)) == "video.completed video_1 äöü"
    assert handle(BODY, signed("whsec_b2xk", secret)) == "video.completed video_1 äöü"
    for body, headers in ((BODY + b" ", signed(secret)), (BODY, signed("other")), (BODY, signed(secret, age_s=400))):
        with pytest.raises(InvalidWebhookSignatureError):
            handle(body, headers)
    names["client"].close()


@pytest.mark.parametrize("secret", SECRETS, ids=["minted", "given", "plain"])
def test_the_python_example_without_the_sdk_verifies_signatures(secret: str) -> None:
    verify: Callable[..., dict[str, Any]] = run(WITHOUT_SDK)["verify"]
    assert verify(secret, signed(secret), BODY) == json.loads(BODY)
    assert verify(secret, signed("whsec_b2xk", secret), BODY) == json.loads(BODY)
    for body, headers in ((BODY + b" ", signed(secret)), (BODY, signed("other")), (BODY, signed(secret, age_s=400))):
        with pytest.raises(ValueError, match=r"the signature does not match|too old"):
            verify(secret, headers, body)


def test_the_node_example_verifies_signatures(tmp_path: Path) -> None:
    need("node")
    cases = []
    for secret in SECRETS:
        cases += [
            (secret, signed(secret), BODY, True),
            (secret, signed("whsec_b2xk", secret), BODY, True),
            (secret, signed(secret), BODY + b" ", False),
            (secret, signed("other"), BODY, False),
            (secret, signed(secret, age_s=400), BODY, False),
            (secret, {**signed(secret), "webhook-timestamp": "soon"}, BODY, False),
        ]
    script = tmp_path / "verify.cjs"
    script.write_text(
        NODE
        + """
for (const [secret, headers, body, good] of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
  let found = null;
  try { found = verify(secret, headers, Buffer.from(body, "utf8")); } catch (error) { console.error(error.message); }
  if ((found !== null) !== good || (good && found.data.id !== "video_1 äöü")) { process.exit(1); }
}
""",
        "utf-8",
    )
    given = json.dumps([(secret, headers, body.decode(), good) for secret, headers, body, good in cases])
    done = subprocess.run(
        ["node", script], input=given, capture_output=True, text=True, check=False, timeout=60, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not match") == 6
    assert done.stderr.count("too old") == 6


def test_numbers_in_the_page_are_those_of_the_code() -> None:
    from app.webhooks import deliveries

    assert list(deliveries.GAPS_S) == [5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800]
    assert "after 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h and then every 8 h" in PAGE.text
    assert Settings.model_fields["webhook_timeout_s"].default == 30
    assert Settings.model_fields["webhook_concurrency"].default == 50
    assert (deliveries.RETRY_S, worker.QUEUE_SHARE, endpoints.MAX_ENDPOINTS) == (72 * 3_600, 5, 50)
    assert (deliveries.KEPT_S, sender.MAX_ANSWER_CHARACTERS) == (30 * 86_400, 2_048)
    for kind in events.EventType:
        assert f"| `{kind}` |" in PAGE.text
