"""The operator's cards of providers: states in words, figures, the end of a pause, and checks."""

import re
from html import unescape

import pytest
from console.conftest import Visitor
from console.desks import HOSTILE, READER, audited, desk, panel, signed_in, words, words_of
from fakes.server import KEY, Answer, closed_port
from harness import StartGateway
from upstreams import Upstreams

pytestmark = pytest.mark.anyio

PATH = "/console/providers"
DOWN = Answer(503, {"error": {"message": "down"}})


async def card(visitor: Visitor, name: str) -> str:
    """The markup of the card of a provider."""
    page = await visitor.get(PATH)
    assert page.status_code == 200, page.text
    return panel(page.text, f"provider-{name}")


async def test_a_card_has_the_figures_of_the_hour_and_the_day(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].script("submit", Answer(400, {"error": {"message": f"no boats, says {KEY} {HOSTILE}"}}))
    models = {"clip": {"routes": ["one/sora-2"]}}
    async with desk(start_gateway, providers=two.providers(concurrency=7), models=models) as (gateway, visitor, _):
        failed = await gateway.create(model="one/sora-2")
        await gateway.finish(failed["id"], step_s=2)
        for _ in range(3):
            await gateway.finish((await gateway.create(model="clip"))["id"], step_s=2)
        await gateway.create(model="clip")
        gateway.clock.advance(30)
        found = await card(visitor, "one")
        text = words_of(found)
        idle = words_of(await card(visitor, "two"))
    for expected in (
        "one openai",
        "Answers",
        "Under way 0 of 7",
        "Waiting 1, the oldest for 30 s",
        "Last hour 4 submits, 75.0 % succeeded",
        "24 hours: 4 submits, 1 failure",
        "Serves",
        "clip by one/sora-2",
    ):
        assert expected in text, text
    assert re.search(r"Accepted p50 [\d.]+ s, p95 [\d.]+ s", text), text
    assert re.search(r"Finished p50 [\d.]+ s, p95 [\d.]+ s", text), text
    assert re.search(r"Failures <?\w* ?\w+ 1", text), text
    assert f'href="/console/videos/{failed["id"]}"' in found
    assert "no boats" in re.findall(r"<pre>(.*?)</pre>", found, re.DOTALL)[0]
    assert KEY not in found
    assert "<img src=x" not in found
    assert "<script>" not in found
    assert "{{ 7*7 }}" in found
    assert "Not used in the last 24 hours" in idle
    assert "<svg" not in idle


async def test_the_bars_of_the_day_have_the_numbers_of_the_table(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].script("submit", *[Answer(400, {"error": {"message": "no"}})] * 2)
    async with desk(start_gateway, providers=two.providers()) as (gateway, visitor, _):
        for _ in range(2):
            await gateway.finish((await gateway.create(model="one/sora-2"))["id"], step_s=2)
        gateway.clock.advance(2 * 3_600)
        for _ in range(4):
            await gateway.finish((await gateway.create(model="one/sora-2"))["id"], step_s=2)
        found = await card(visitor, "one")
    bars = re.findall(r'<rect class="(\w+)" x="(\d+)" y="[\d.]+" width="\d" height="([\d.]+)"/>', found)
    assert [(kind, height) for kind, _, height in bars] == [
        ("submits", "18.0"),
        ("failures", "18.0"),
        ("submits", "36.0"),
    ]
    assert int(bars[2][1]) - int(bars[0][1]) == 20, "two hours"
    rows = re.findall(r'<td class="number">(\d+)</td><td class="number">(\d+)</td>', found)
    assert rows == [("4", "0"), ("2", "2")]
    assert "The last 24 hours, from left to right: 6 submits, 2 failures" in found
    assert " style=" not in found


async def test_a_pause_is_ended_by_the_operator_and_what_waits_goes_through(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    one = two.fakes["one"]
    one.script("submit", *[DOWN] * 5)
    async with desk(start_gateway, providers=two.providers(), worker_concurrency=1) as (gateway, visitor, admin):
        made = [(await gateway.create(model="one/sora-2"))["id"] for _ in range(5)]
        await gateway.worker.run_once()
        found = await card(visitor, "one")
        assert re.search(r"Rests until \d\d:\d\d:\d\d UTC for one project, after 5 failures", words_of(found)), found
        assert "rests until" in words_of(found), "the project is named in the list"
        assert "down" in re.findall(r"<pre>(.*?)</pre>", found, re.DOTALL)[0], "the reason, in the vendor's words"
        assert f'href="{PATH}/one/close"' in found
        question = await words(visitor, f"{PATH}/one/close")
        assert "Close the circuit of one now?" in question
        assert "5 waiting outputs and all new ones are submitted" in question
        token = await visitor.token()
        assert (await visitor.post(f"{PATH}/one/close", {})).status_code == 403
        closed = await visitor.post(f"{PATH}/one/close", {"csrf": token})
        assert (closed.status_code, closed.headers["location"]) == (303, f"{PATH}?said=circuits_closed")
        assert "The circuit is closed" in await words(visitor, f"{PATH}?said=circuits_closed")
        found = await card(visitor, "one")
        assert "Answers" in found
        assert f'href="{PATH}/one/close"' not in found
        assert await audited(admin, "breaker.release") == [("console", "admin")]
        again = await visitor.post(f"{PATH}/one/close", {"csrf": token})
        assert again.headers["location"] == f"{PATH}?said=circuits_were_closed"
        assert len(await audited(admin, "breaker.release")) == 1
        assert {(await gateway.finish(video))["status"] for video in made} == {"completed"}


async def test_a_pause_of_all_projects_ends_in_a_try(start_gateway: StartGateway) -> None:
    down = {"kind": "openai", "base_url": f"{closed_port()}/v1", "api_key": KEY}
    async with desk(start_gateway, providers={"down": down}, worker_concurrency=1) as (gateway, visitor, _):
        for _ in range(6):
            await gateway.create(model="down/sora-2")
        await gateway.worker.run_once()
        text = words_of(await card(visitor, "down"))
        assert re.search(r"Rests until \d\d:\d\d:\d\d UTC after 5 failures Under way", text), text
        assert re.search(r"Last error .* upstream_unavailable its video down cannot be reached", text), text
        gateway.clock.advance(16)
        assert "Is being tried again" in words_of(await card(visitor, "down"))


async def test_a_provider_that_is_gone_says_so(start_gateway: StartGateway, two: Upstreams) -> None:
    async with start_gateway(providers=two.providers()) as gateway:
        await gateway.create(model="two/sora-2")
        await gateway.worker.run_once()
    left = {"one": two.providers()["one"]}
    async with desk(start_gateway, providers=left) as (_, visitor, _):
        found = await card(visitor, "two")
        token = await visitor.token()
        checked = await visitor.post(f"{PATH}/two/check", {"csrf": token})
    assert "Not configured any more" in words_of(found)
    assert "Under way 1" in words_of(found)
    assert f"{PATH}/two/check" not in found
    assert checked.status_code == 404


async def test_a_check_shows_the_answer_of_the_vendor(start_gateway: StartGateway, two: Upstreams) -> None:
    wrong = {"kind": "openai", "base_url": f"{two.urls['two']}/v1", "api_key": "sk-sekret-0123456789"}
    providers = {**two.providers(), "wrong": wrong}
    async with desk(start_gateway, providers=providers) as (_, visitor, _):
        token = await visitor.token()
        page = await visitor.post(f"{PATH}/one/check", {"csrf": token})
        part = await visitor.post(f"{PATH}/wrong/check", {"csrf": token}, **{"hx-request": "true"})
        unknown = await visitor.post(f"{PATH}/nothing/check", {"csrf": token})
    assert page.status_code == 200
    assert "It works : answers and accepts the key" in words_of(panel(page.text, "provider-one"))
    assert "It works" not in words_of(panel(page.text, "provider-wrong"))
    assert "It does not work" in part.text
    assert "Next step: set the right key in GATEWAY_PROVIDERS__WRONG__API_KEY" in unescape(part.text)
    assert "<html" not in part.text
    assert "sekret" not in part.text
    assert unknown.status_code == 404


async def test_a_page_that_is_open_gets_its_cards_alone(operator: Visitor) -> None:
    part = await operator.get(PATH, **{"hx-request": "true"})
    assert part.text.startswith('<section id="providers" data-again="/console/providers">')
    assert "<html" not in part.text
    assert part.text.strip() in (await operator.get(PATH)).text


async def test_it_is_the_operators_page(alice: Visitor) -> None:
    token = await alice.token()
    for path in (PATH, f"{PATH}/sandbox/close"):
        assert (await alice.get(path)).status_code == 403, path
    for path in (f"{PATH}/sandbox/close", f"{PATH}/sandbox/check"):
        assert (await alice.post(path, {"csrf": token})).status_code == 403, path


async def test_a_key_that_may_only_read_is_offered_no_action(start_gateway: StartGateway) -> None:
    async with desk(start_gateway) as (gateway, _, _), signed_in(gateway, READER) as reader:
        page = await reader.get(PATH)
        assert page.status_code == 200
        assert "/check" not in page.text
        token = await reader.token()
        for path in (f"{PATH}/sandbox/close", f"{PATH}/sandbox/check"):
            refused = await reader.post(path, {"csrf": token})
            assert (refused.status_code, "may only read" in refused.text) == (403, True), path


async def test_a_pause_of_an_unknown_provider_cannot_be_ended(operator: Visitor) -> None:
    token = await operator.token()
    for name in ("nothing", "%00", "x" * 2_000):
        assert (await operator.get(f"{PATH}/{name}/close")).status_code == 404
        assert (await operator.post(f"{PATH}/{name}/close", {"csrf": token})).status_code == 404
