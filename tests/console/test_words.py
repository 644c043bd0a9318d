"""Words of pages in place of those of the API, and addresses of forms that a browser opens again."""

from html import unescape

import pytest
from console.conftest import Visitor
from console.desks import desk, words, words_of
from harness import Running, StartGateway
from webhooks.registration import cancelled, log_of, register

from app.console.words import plain

pytestmark = pytest.mark.anyio


async def test_no_page_speaks_the_language_of_the_api(start_gateway: StartGateway) -> None:
    async with desk(start_gateway, models={"best": {"routes": ["nowhere/x"]}}) as (_, visitor, _admin):
        token = await visitor.token()
        missing = "/console/repairs/att_01jd3c8m2v9x4y6z8a0b2c4d6e"
        shown = [
            await words(visitor, "/console/overview"),
            await words(visitor, "/console/accounts?project=nope", status=404),
            await words(visitor, "/console/accounts/keys/key_x", status=404),
            words_of((await visitor.post(missing, {"csrf": token, "action": "fail"})).text),
        ]
    for text in shown:
        assert not [word for word in ("/v1/", "`video-gateway ", "purge") if word in text], text
    assert "The page Models has each route" in shown[0]
    assert "the page Repairs lists those that do" in shown[3]


async def test_a_delivery_to_a_disabled_endpoint_is_refused_in_words(gateway: Running, alice: Visitor) -> None:
    endpoint = await register(gateway, "https://example.com/hook")
    await cancelled(gateway)
    (delivery,) = await log_of(gateway, endpoint)
    token = await alice.token()
    await alice.post(f"/console/webhooks/{endpoint['id']}/enable", {"csrf": token, "enabled": "false"})
    refused = await alice.post(f"/console/webhooks/log/{delivery['id']}/again", {"csrf": token})
    assert refused.status_code == 409
    assert "the endpoint is disabled; enable it first" in unescape(refused.text)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("GET /v1/models lists them. GET /v1/models has all.", "The page Models lists them. The page Models has all."),
        ("a; GET /admin/v1/providers lists them", "a; the page Providers lists them"),
        ("the video was deleted or purged, so", "the video was deleted or erased, so"),
        ("GET /v1/modelsque stays", "GET /v1/modelsque stays"),
    ],
)
def test_addresses_become_pages(message: str, shown: str) -> None:
    assert plain(message) == shown


async def test_addresses_of_forms_lead_to_their_pages(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    endpoint = await register(gateway, "https://example.com/hook")
    video = await gateway.create(model="sandbox/slow")
    page, address = f"/console/webhooks/{endpoint['id']}", f"/console/videos/{video['id']}"
    for visitor, path, expected in (
        (alice, "/console/videos/selected", "/console/videos"),
        (operator, "/console/videos/selected", "/console/videos"),
        (alice, f"{address}/link", address),
        *((alice, f"{page}/{form}", page) for form in ("enable", "secret", "test")),
        (operator, "/console/repairs/att_x", "/console/repairs"),
    ):
        led = await visitor.get(path)
        assert (led.status_code, led.headers.get("location")) == (303, expected), path
    assert (await alice.get("/console/repairs/att_x")).status_code == 403
    assert (await operator.get(f"{page}/test")).status_code == 403
    assert (await alice.get("/console/webhooks/whe_x/test")).status_code == 404
