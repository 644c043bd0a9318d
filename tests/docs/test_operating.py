"""The calls of docs/operating.md, and those about deliveries in docs/webhooks.md."""

import json
from pathlib import Path

import pages
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE, StartGateway
from money import ADMIN

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/operating.md")
LOOK, CHANGE = PAGE.one("sh", "/admin/v1/status"), PAGE.one("sh", "/breaker")
DELIVERIES = pages.read("docs/webhooks.md").one("sh", "redeliver_failed")


async def test_an_operator_pastes_each_call(start_gateway: StartGateway, fake: FakeOpenAI, tmp_path: Path) -> None:
    async with serve(fake) as upstream:
        up = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY}
        async with (
            start_gateway(providers={"up": up}, admin_key=ADMIN) as gateway,
            serve(gateway.app) as url,
        ):
            env = {"GATEWAY": url, "GATEWAY_ADMIN_KEY": ADMIN, "NAME": "up", "URL": url, "KEY": ALICE}
            printed = {
                block: await pages.shell(block.replace("curl ", "curl -w '\\n' "), folder=tmp_path, **env)
                for block in (LOOK, CHANGE, DELIVERIES)
            }
    found = {block: [json.loads(line) for line in text.splitlines() if line] for block, text in printed.items()}
    assert [answer["object"] for answer in found[LOOK]] == ["status", "list", "list", "settings", "list"]
    check, breaker = found[CHANGE]
    assert (check["status"], breaker["object"]) == ("ok", "provider.breaker")
    assert [answer["object"] for answer in found[DELIVERIES]] == ["list", "webhook_delivery.redelivered"]
