"""The pages of models and of snippets: what is listed, side by side, and what a filter leaves."""

import re
from html import unescape

import pytest
from console.conftest import Visitor, visitor_at
from harness import ALICE, Running, StartGateway
from money import operator_of

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="rowgroup"[^>]*><a[^>]*>([^<]+)</a>', page)


async def test_models_are_narrowed_by_ability_price_and_name(start_gateway: StartGateway) -> None:
    keys = {"ark": {"api_key": "not used"}, "sandbox": {}}
    async with start_gateway(providers=keys, prices={"sandbox/testcard": 0.01}) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            everything = names((await visitor.get("/console/models")).text)
            assert {"sandbox/testcard", "seedance-1.0-pro"} <= set(everything)
            remixable = names((await visitor.get("/console/models?can=remix")).text)
            assert "sandbox/testcard" in remixable
            assert "seedance-1.0-pro" not in remixable
            cheap = await visitor.get("/console/models?max_price=0.011&q=TESTCARD")
            assert names(cheap.text) == ["sandbox/testcard"]
            assert "Nothing matches" in (await visitor.get("/console/models?q=nothing-like-it")).text
            for query in ("max_price=cheap", "max_price=-1", "max_price=nan", "can=fly"):
                wrong = await visitor.get(f"/console/models?{query}")
                assert (wrong.status_code, 'role="alert"' in wrong.text) == (400, True), query
            page = await visitor.get("/console/models/seedance-1.0-pro")
            assert "ark/" in page.text
            assert "last frame" in page.text


async def test_a_model_is_shown_to_those_who_may_use_it(gateway: Running, visitor: Visitor, operator: Visitor) -> None:
    async with operator_of(gateway) as admin:
        key = await admin.key(models=["sandbox/testcard"])
    await visitor.sign_in(key["key"])
    assert (await visitor.get("/console/models/sandbox/testcard")).status_code == 200
    for name in ("sandbox/fail", "nothing", HOSTILE, "a%00b"):
        missing = await visitor.get(f"/console/models/{name}")
        assert missing.status_code == 404, name
        assert HOSTILE not in missing.text
    assert names((await visitor.get("/console/models")).text) == ["sandbox/testcard"]
    page = await operator.get("/console/models/sandbox/fail")
    assert page.status_code == 200
    assert "Try it" not in page.text


async def test_an_alias_says_how_its_routes_are_tried(start_gateway: StartGateway) -> None:
    routes = ["sandbox/testcard", {"to": "sandbox/slow", "weight": 3}]
    aliases = {
        "plain": {"routes": ["sandbox/slow"]},
        "fast": {"routes": routes, "strategy": "fastest", "max_cost": 2.5},
    }
    async with start_gateway(models=aliases) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            plain = await visitor.get("/console/models/plain")
            assert (plain.status_code, "An alias of the settings." in plain.text) == (200, True)
            fast = (await visitor.get("/console/models/fast")).text
            assert "“fastest”" in fast
            assert "$2.5 at most" in fast
            assert "<td>3.0</td>" in fast


async def test_connect_has_the_address_as_it_was_reached(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    page = unescape((await alice.get("/console/connect")).text)
    assert "OPENAI_BASE_URL=http://gateway.test/v1" in page
    assert "http://gateway.test/luma/" in page
    assert ALICE not in page
    tested = await alice.post("/console/connect", {"csrf": await alice.token()})
    assert "Your key may use 4 models" in tested.text
    assert (await operator.get("/console/connect")).status_code == 403
