"""Webhook endpoints in the console: make, change, a new secret, test, enable, delete."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import pytest
import sqlalchemy as sa
from console.conftest import Visitor, visitor_at
from console.tables import values_of
from fakes.receiver import Receiver
from fakes.server import Answer, Hang, closed_port, serve
from harness import ALICE, BOB, Running, StartGateway
from openai import AsyncOpenAI
from webhooks.registration import TYPES, cancelled, get, log_of, register, verified

from app.db.models import WebhookEndpoint
from app.webhooks import endpoints

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"
PATH = "/console/webhooks"


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hook(receiver: Receiver) -> AsyncIterator[str]:
    async with serve(receiver) as url:
        yield f"{url}/hook"


def form(token: str, url: str, *types: str, name: str = "mine") -> dict[str, str]:
    return {"csrf": token, "name": name, "url": url, **{f"type {kind}": "on" for kind in types or TYPES}}


def secret_in(page: str) -> str:
    (found,) = re.findall(r'<code id="secret-value">(whsec_[^<]+)</code>', page)
    return str(found)


async def only(gateway: Running) -> dict[str, Any]:
    (found,) = (await get(gateway, "/v1/webhook_endpoints"))["data"]
    return dict(found)


async def test_an_endpoint_is_made_and_its_secret_shown_once(gateway: Running, alice: Visitor) -> None:
    empty = await alice.get(PATH)
    assert "A webhook tells your server" in empty.text
    token = await alice.token()
    made = await alice.post(PATH, form(token, "https://example.com/hook", "video.failed", name=" shop "))
    assert made.status_code == 200
    secret = secret_in(made.text)
    endpoint = await only(gateway)
    assert (endpoint["name"], endpoint["url"], endpoint["event_types"]) == (
        "shop",
        "https://example.com/hook",
        ["video.failed"],
    )
    assert secret.endswith(endpoint["signing_secret_hint"][-4:])
    for path in (PATH, f"{PATH}/{endpoint['id']}", f"{PATH}/{endpoint['id']}/delete", f"{PATH}/log"):
        page = await alice.get(path)
        assert (page.status_code, secret in page.text) == (200, False), path
    shown = (await alice.get(PATH)).text
    assert "https://example.com/hook" in shown
    assert '<span class="state completed">On</span>' in shown


async def test_an_endpoint_is_changed_disabled_and_enabled(gateway: Running, alice: Visitor) -> None:
    endpoint = await register(gateway, "https://example.com/hook")
    address = f"{PATH}/{endpoint['id']}"
    token = await alice.token()
    changed = await alice.post(address, form(token, "https://example.org/", "video.completed", name="other"))
    assert (changed.status_code, changed.headers["location"]) == (303, f"{address}?said=endpoint_changed")
    found = await only(gateway)
    assert (found["name"], found["url"], found["event_types"]) == ("other", "https://example.org/", ["video.completed"])
    assert "The endpoint was changed." in (await alice.get(changed.headers["location"])).text
    await alice.post(f"{address}/enable", {"csrf": token, "enabled": "false"})
    assert (await only(gateway))["enabled"] is False
    for path in (PATH, address):
        page = (await alice.get(path)).text
        assert "disabled by its project" in page
        assert re.search(r'value="true">.*?<button[^>]*>Enable</button>', page, re.DOTALL)
    enabled = await alice.post(f"{address}/enable", {"csrf": token, "enabled": "true"})
    assert enabled.headers["location"] == f"{address}?said=endpoint_enabled"
    assert (await only(gateway))["enabled"] is True


async def test_an_endpoint_that_fails_says_since_when(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    receiver.always = Answer(500)
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    since = f"{gateway.clock.now:%Y-%m-%d %H:%M} UTC"
    for path in (PATH, f"{PATH}/{endpoint['id']}"):
        page = (await alice.get(path)).text
        assert '<span class="state failed">Failing</span>' in page
        assert since in page
    for _ in range(20):
        await gateway.worker.run_once()
        gateway.clock.advance(9 * 3_600)
    await alice.sign_in(ALICE)
    page = (await alice.get(f"{PATH}/{endpoint['id']}")).text
    assert "nothing was delivered since" in page
    assert "answered 500" in page


@pytest.mark.parametrize("keep_old", [True, False])
async def test_a_new_secret_is_shown_once_and_the_old_one_may_stay(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str, keep_old: bool
) -> None:
    endpoint = await register(gateway, hook)
    address = f"{PATH}/{endpoint['id']}"
    token = await alice.token()
    kept = {"keep_old": "on"} if keep_old else {}
    mark = values_of((await alice.get(address)).text)["instead_of"]
    rotated = await alice.post(f"{address}/secret", {"csrf": token, "instead_of": mark, **kept})
    assert secret_in(rotated.text) != endpoint["signing_secret"]
    assert secret_in(rotated.text) not in (await alice.get(address)).text
    assert ("The old one signs as well, until" in rotated.text) is keep_old
    await alice.post(f"{address}/test", {"csrf": token, "event_type": "video.failed"})
    assert len(receiver.received[0].headers["webhook-signature"].split()) == 1 + keep_old
    gateway.clock.advance(86_401)
    await alice.sign_in(ALICE)
    assert "The old one signs as well, until" not in (await alice.get(address)).text


async def test_a_new_secret_is_made_once_however_often_the_form_is_sent(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    endpoint = await register(gateway, hook)
    address = f"{PATH}/{endpoint['id']}"
    shown = values_of((await alice.get(address)).text)
    sent = {"csrf": shown["csrf"], "instead_of": shown["instead_of"], "keep_old": "on"}
    new = secret_in((await alice.post(f"{address}/secret", sent)).text)
    for form_sent in (sent, {**sent, "instead_of": ""}, {**sent, "instead_of": "é"}):
        again = await alice.post(f"{address}/secret", form_sent)
        assert (again.status_code, "secret-value" in again.text) == (409, False)
        assert "A new secret was made already" in again.text
    await alice.post(f"{address}/test", {"csrf": sent["csrf"], "event_type": "video.failed"})
    async with AsyncOpenAI(api_key="unused") as client:
        for secret in (endpoint["signing_secret"], new):
            assert verified(client, receiver.received[0], secret).type == "video.failed"
    page = (await alice.get(address)).text
    assert f"ends at once then: your receiver has to know the one that ends in <code>{new[-4:]}</code>" in page
    assert new not in page


async def test_a_form_sent_twice_makes_one_endpoint(gateway: Running, alice: Visitor) -> None:
    sent = form(await alice.token(), "https://example.com/hook")
    both = await asyncio.gather(alice.post(PATH, sent), alice.post(PATH, sent))
    assert sorted(one.status_code for one in both) == [200, 409]
    again = await alice.post(PATH, sent)
    assert (again.status_code, "secret-value" in again.text) == (409, False)
    assert "There is an endpoint with this name and address already" in again.text
    assert (await only(gateway))["name"] == "mine"
    assert (await alice.post(PATH, {**sent, "name": "other"})).status_code == 200


async def test_a_test_event_shows_the_answer(gateway: Running, alice: Visitor, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    address = f"{PATH}/{endpoint['id']}/test"
    assert "waits up to 15 s" in (await alice.get(f"{PATH}/{endpoint['id']}")).text
    sent = {"csrf": await alice.token(), "event_type": "video.cancelled"}
    receiver.script(Answer(200, HOSTILE), Answer(500, "broken"), Answer(302))
    good = (await alice.post(address, sent)).text
    assert "answered 200" in good
    assert "counts as delivered" in good
    assert "<img" not in good
    assert HOSTILE in unescape(good)
    assert re.search(r'value="video.cancelled" selected', good)
    bad = (await alice.post(address, sent)).text
    assert "answered 500" in bad
    assert "<pre>broken</pre>" in bad
    assert "redirects are not followed" in (await alice.post(address, sent)).text
    assert receiver.received[0].json["type"] == "video.cancelled"
    assert await log_of(gateway, endpoint) == []
    unknown = await alice.post(address, {**sent, "event_type": HOSTILE})
    assert (unknown.status_code, 'id="h-event_type" role="alert"' in unknown.text) == (400, True)
    assert "<img" not in unknown.text
    assert len(receiver.received) == 3


async def test_a_test_says_why_there_is_no_answer(start_gateway: StartGateway, receiver: Receiver, hook: str) -> None:
    async with start_gateway(webhook_timeout_s=0.2) as gateway:
        alice = visitor_at(gateway)
        async with alice.client:
            await alice.sign_in(ALICE)
            sent = {"csrf": await alice.token(), "event_type": "video.failed"}
            for url, said in ((closed_port(), "could not be called: no answer"), (hook, "no answer within 0.2 s")):
                receiver.always = Hang()
                endpoint = await register(gateway, url)
                page = await alice.post(f"{PATH}/{endpoint['id']}/test", sent)
                assert (page.status_code, said in page.text) == (200, True), page.text
                assert "waits up to 0.2 s" in page.text


async def test_a_test_ends_sooner_than_a_delivery(gateway: Running, receiver: Receiver, hook: str) -> None:
    receiver.always = Hang()
    endpoint = await register(gateway, hook)
    async with gateway.gateway.db.reading() as connection:
        found = await endpoints.get_endpoint(
            connection, endpoint["id"], project_id=(await get(gateway, "/v1/me"))["project"]["id"]
        )
    answer = await gateway.gateway.sender.test(found, "video.failed", longest_s=0.1)
    assert answer.error == "no answer within 0.1 s"


async def test_tests_of_one_project_are_few_at_once(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    endpoint = await register(gateway, hook)
    sent = {"csrf": await alice.token(), "event_type": "video.failed"}
    project = (await get(gateway, "/v1/me"))["project"]["id"]
    slots = gateway.gateway.webhook_tests
    with slots.slot(project), slots.slot(project), slots.slot(project):
        refused = await alice.post(f"{PATH}/{endpoint['id']}/test", sent)
    assert (refused.status_code, "test events of this project" in refused.text) == (429, True)
    assert receiver.received == []


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"url": ""}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://user:pw@example.com/"}, "url"),
        ({"url": "http://10.0.0.1/hook"}, "url"),
        ({"url": f"https://{HOSTILE}/"}, "url"),
        ({"name": ""}, "name"),
        ({"name": HOSTILE * 10}, "name"),
        ({"type batch.completed": "on"}, "event_types"),
        ({f"type {HOSTILE}": "on"}, "event_types"),
    ],
)
async def test_errors_stand_at_their_field_and_what_was_typed_stays(
    gateway: Running, alice: Visitor, wrong: dict[str, str], param: str
) -> None:
    endpoint = await register(gateway, "https://example.com/")
    token = await alice.token()
    given = {**form(token, "https://example.com/kept", "video.failed", name="kept"), **wrong}
    for path in (PATH, f"{PATH}/{endpoint['id']}"):
        page = await alice.post(path, given)
        assert page.status_code == 400
        assert f'id="h-{param}" role="alert"' in page.text
        assert "<img" not in page.text
        for name in ("name", "url"):
            shown = re.search(rf'name="{name}" type="[a-z]+" value="([^"]*)"', page.text)
            assert shown
            assert unescape(shown[1]) == given[name]
        assert re.search(r'name="type video.failed" checked', page.text)
        assert not re.search(r'name="type video.completed" checked', page.text)
    assert (await only(gateway))["url"] == "https://example.com/"


async def test_no_type_is_refused_and_so_is_one_endpoint_too_many(gateway: Running, alice: Visitor) -> None:
    token = await alice.token()
    none = await alice.post(PATH, {"csrf": token, "name": "x", "url": "https://example.com/"})
    assert (none.status_code, "name at least one" in none.text) == (400, True)
    for _ in range(endpoints.MAX_ENDPOINTS):
        await register(gateway, "https://example.com/")
    full = await alice.post(PATH, form(token, "https://example.com/"))
    assert (full.status_code, "50 endpoints already" in full.text) == (400, True)
    page = (await alice.get(PATH)).text
    assert "which is the most" in page
    assert "Make the endpoint" not in page


async def test_hostile_names_are_text(gateway: Running, alice: Visitor) -> None:
    endpoint = await register(gateway, "https://example.com/?<img>", name=HOSTILE)
    async with gateway.gateway.db.transaction() as session:
        disabled = {"disabled_at": gateway.clock.now, "disabled_reason": HOSTILE}
        await session.execute(sa.update(WebhookEndpoint).values(**disabled))
    for path in (PATH, f"{PATH}/{endpoint['id']}", f"{PATH}/{endpoint['id']}/delete", f"{PATH}/log"):
        page = (await alice.get(path)).text
        assert "<img" not in page
        assert HOSTILE in unescape(page)


async def test_deleting_asks_first(gateway: Running, alice: Visitor) -> None:
    endpoint = await register(gateway, "https://example.com/hook")
    address = f"{PATH}/{endpoint['id']}/delete"
    page = (await alice.get(address)).text
    assert "Delete this endpoint?" in page
    assert "https://example.com/hook" in page
    assert (await only(gateway))["id"] == endpoint["id"]
    deleted = await alice.post(address, {"csrf": await alice.token()})
    assert (deleted.status_code, deleted.headers["location"]) == (303, f"{PATH}?said=endpoint_deleted")
    assert (await get(gateway, "/v1/webhook_endpoints"))["data"] == []
    assert (await alice.get(f"{PATH}/{endpoint['id']}")).status_code == 404


async def test_endpoints_of_another_project_and_the_operator(
    gateway: Running, alice: Visitor, operator: Visitor, receiver: Receiver, hook: str
) -> None:
    endpoint = await register(gateway, hook)
    log = await operator.get(PATH)
    assert (log.status_code, "<h1>Webhook deliveries</h1>" in log.text, hook in log.text) == (200, True, False)
    bob = visitor_at(gateway)
    async with bob.client:
        await bob.sign_in(BOB)
        assert hook not in (await bob.get(PATH)).text
        for visitor, status in ((bob, 404), (operator, 403)):
            token = await visitor.token()
            address = f"{PATH}/{endpoint['id']}"
            for path in ("", "/delete"):
                assert (await visitor.get(address + path)).status_code == status, path
            everything = {**form(token, "https://example.com/"), "event_type": "video.failed", "enabled": "false"}
            for path in ("", "/enable", "/secret", "/test", "/delete"):
                assert (await visitor.post(address + path, everything)).status_code == status, path
        assert (await operator.post(PATH, form(await operator.token(), hook))).status_code == 403
    assert (await only(gateway))["url"] == hook
    assert (await only(gateway))["enabled"] is True
    assert receiver.received == []
