"""The operator's overview: its figures, providers, workers, warnings and failures."""

import re
from html import unescape
from typing import Any

import pytest
import sqlalchemy as sa
from console.conftest import Visitor
from console.desks import HOSTILE, READER, desk, signed_in, words
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Reset, serve
from harness import Running, StartGateway, statements

from app.jobs import presence

pytestmark = pytest.mark.anyio

PATH = "/console/overview"
MOST_QUERIES = 12


def figures(markup: str) -> dict[str, str]:
    """The figures of a page by their labels."""
    found = re.findall(r"<li><strong>(.*?)</strong>(.*?)</li>", markup)
    return {unescape(label): unescape(re.sub(r"<[^>]*>", "", value)) for value, label in found}


async def test_an_idle_gateway_says_what_is_missing(operator: Visitor) -> None:
    page = await operator.get(PATH)
    assert page.status_code == 200
    shown = figures(page.text)
    assert {name: shown[name] for name in ("running", "queued", "oldest wait", "held", "created", "succeeded")} == {
        "running": "0",
        "queued": "0",
        "oldest wait": "-",
        "held": "$0.00",
        "created": "0",
        "succeeded": "-",
    }
    assert re.fullmatch(r"\d+\.\d ms", shown["the database's answer"])
    text = await words(operator, PATH)
    for expected in (
        "No worker runs, so no video is made",
        "no vendor is configured: only the sandbox makes videos. Next step: set a vendor's key",
        "sandbox Not used in the last 24 hours",
        "No video has failed.",
    ):
        assert expected in text, text


async def test_what_runs_waits_and_failed_is_counted_and_led_to(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}
        settings: dict[str, Any] = {"providers": {"up": up}, "prices": {"up/sora-2": 0.5}}
        async with desk(start_gateway, **settings) as (gateway, visitor, _):
            await gateway.finish((await gateway.create(model="up/sora-2", seconds="4"))["id"])
            fake.script("submit", Answer(400, {"error": {"message": HOSTILE}}), Reset())
            refused = await gateway.create(model="up/sora-2", seconds="4", prompt=HOSTILE)
            await gateway.finish(refused["id"])
            await gateway.finish((await gateway.create(model="up/sora-2", seconds="4"))["id"])
            cancelled = await gateway.create(model="up/sora-2", seconds="4")
            await gateway.client.delete(f"/v1/videos/{cancelled['id']}")
            await gateway.create(model="up/sora-2", seconds="4")
            await presence.announce(gateway.gateway.db, "a worker")
            gateway.clock.advance(90)
            sent = await count_statements(gateway, visitor)
            page = await visitor.get(PATH)
    shown = figures(page.text)
    assert {name: shown[name] for name in ("running", "queued", "oldest wait", "held", "created")} == {
        "running": "0",
        "queued": "1",
        "oldest wait": "90 s",
        "held": "$4.00",
        "created": "5",
    }
    assert (shown["completed"], shown["failed"], shown["cancelled"], shown["succeeded"]) == ("1", "2", "1", "33.3 %")
    assert shown["spent, as far as prices are known"] == "$0.125"
    assert f'href="/console/videos/{refused["id"]}"' in page.text
    assert f'href="/console/videos/{cancelled["id"]}"' not in page.text
    assert 'href="/console/repairs">1 submit waits for your decision' in page.text
    assert 'href="/console/providers#provider-up"' in page.text
    text = unescape(page.text)
    assert f"<td>{presence.RELEASE}</td>" in text
    assert "1 worker has 0 outputs under way." in text
    assert "<img src=x" not in page.text
    assert "<script>" not in page.text
    assert "{{ 7*7 }}" in page.text
    assert sent <= MOST_QUERIES


async def test_a_paused_provider_and_a_disabled_endpoint_are_shown(start_gateway: StartGateway) -> None:
    down = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": KEY}
    async with desk(start_gateway, providers={"down": down}, worker_concurrency=1) as (gateway, visitor, _):
        endpoint = {"name": HOSTILE, "url": "http://127.0.0.1:9/", "event_types": ["video.completed"]}
        made = (await gateway.client.post("/v1/webhook_endpoints", json=endpoint)).json()
        async with gateway.gateway.db.reading() as connection:
            disabled = "update webhook_endpoints set disabled_at = now(), disabled_reason = 'gone' where id = :id"
            await connection.execute(sa.text(disabled), {"id": made["id"]})
        for _ in range(6):
            await gateway.create(model="down/sora-2")
        await gateway.worker.run_once()
        text = await words(visitor, PATH)
        page = await visitor.get(PATH)
    assert re.search(r"down Rests until \d\d:\d\d:\d\d UTC after 5 failures 0 6 \(0 s\)", text), text
    assert f"{HOSTILE} " in unescape(page.text).replace("</th>", " ")
    assert "<img src=x" not in page.text


async def test_holders_of_keys_and_strangers_see_no_overview(alice: Visitor, visitor: Visitor) -> None:
    assert (await alice.get(PATH)).status_code == 403
    assert (await visitor.get(PATH)).status_code == 303


async def test_a_key_that_may_only_read_sees_the_overview(start_gateway: StartGateway) -> None:
    async with desk(start_gateway) as (gateway, _, _), signed_in(gateway, READER) as reader:
        assert "operator, read only" in await words(reader, PATH)


async def count_statements(gateway: Running, visitor: Visitor) -> int:
    """The statements of one page."""
    with statements(gateway) as sent:
        assert (await visitor.get(PATH)).status_code == 200
    return len(sent)
