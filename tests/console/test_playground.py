"""The playground: the form of a model, its price, and the video that it makes once."""

import re
from html import unescape
from typing import Any

import pytest
from console.conftest import Visitor, visitor_at
from harness import ALICE, Running, StartGateway
from money import ADMIN, operator_of

from app.jobs.videos import get_videos

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
FORM = {"model": "sandbox/testcard", "prompt": "a paper boat", "seconds": "1", "size": "128x128", "n": "1"}


async def videos(gateway: Running) -> list[dict[str, Any]]:
    return list((await gateway.client.get("/v1/videos")).json()["data"])


async def test_the_form_makes_a_video_once(gateway: Running, alice: Visitor) -> None:
    page = await alice.get("/console/playground")
    (retry,) = re.findall(r'name="retry" value="([\w-]+)"', page.text)
    form = {**FORM, "csrf": await alice.token(), "retry": retry}
    for _ in range(2):
        made = await alice.post("/console/playground", form)
        assert made.status_code == 303
    (video,) = await videos(gateway)
    assert made.headers["location"] == f"/console/videos/{video['id']}"
    assert (video["prompt"], video["seconds"], video["size"], video["model"]) == (
        "a paper boat",
        "1",
        "128x128",
        "sandbox/testcard",
    )
    other = await alice.post("/console/playground", {**form, "prompt": "another"})
    assert other.headers["location"] != made.headers["location"], "a form that was changed makes what it says now"


async def test_a_page_with_scripts_gets_the_card_and_a_fresh_form(alice: Visitor) -> None:
    form = {**FORM, "csrf": await alice.token(), "retry": "a"}
    made = await alice.post("/console/playground", form, **{"hx-request": "true"})
    assert made.status_code == 200
    assert made.text.count('class="card"') == 1
    assert re.search(r'id="retry" name="retry" value="[\w-]{20,}"', made.text)
    again = await alice.post("/console/playground", form, **{"hx-request": "true"})
    assert "created already" in again.text


async def test_what_is_wrong_names_its_field_and_makes_nothing(gateway: Running, alice: Visitor) -> None:
    token = await alice.token()
    for change, words in (
        ({"prompt": " "}, "Describe the video first"),
        ({"seconds": "soon"}, "seconds"),
        ({"seconds": "-1"}, "seconds"),
        ({"n": "9"}, "n:"),
        ({"size": "huge"}, "size"),
        ({"model": "sandbox/nothing"}, "sandbox/nothing"),
        ({"first_frame": "http://127.0.0.2/x"}, ""),
        ({"seed": "1e99"}, "seed"),
        ({"seed": "9" * 30}, "seed"),
        ({"prompt": "a" * 32_001}, "32,000"),
        ({"mode": "dance"}, "mode"),
        ({"mode": "remix"}, "Choose a video first"),
        ({"mode": "extend", "from": "video_x"}, "video_x"),
        ({"extra": "[1]"}, "extra"),
        ({"extra": "{"}, "extra"),
        ({"extra": '{"a": NaN}'}, "extra"),
        ({"extra": '{"webhook_url": "http://x"}'}, "webhook_url"),
        ({"prompt": "a\x00b"}, "not text"),
        ({"first_frame": "https://a.example/1.png https://a.example/2.png"}, "not both"),
        ({"characters": "char_unknown"}, "char_unknown"),
    ):
        wrong = await alice.post("/console/playground", {**FORM, "csrf": token, **change}, **{"hx-request": "true"})
        if wrong.status_code == 200:
            assert change == {"first_frame": "http://127.0.0.2/x"}  # a private address that these settings allow
            continue
        assert wrong.status_code in (400, 404), (change, wrong.text)
        assert wrong.headers["hx-retarget"] == "#status"
        assert 'role="alert"' in wrong.text
        assert words in unescape(wrong.text), (change, wrong.text)
    assert len(await videos(gateway)) <= 1


async def test_the_price_is_said_before_the_button(start_gateway: StartGateway) -> None:
    async with start_gateway(prices={"sandbox/testcard": 0.1}) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            token = await visitor.token()
            for change, words in (
                ({}, "≈ $0.10 for 1 s"),
                ({"seconds": "4", "n": "2"}, "≈ $0.80 for 2 x 4 s"),
                ({"seconds": "soon"}, "seconds"),
            ):
                said = await visitor.post("/console/playground/price", {**FORM, "csrf": token, **change})
                assert words in said.text, said.text
            assert await videos(gateway) == []


async def test_a_key_sees_its_models_alone(gateway: Running, visitor: Visitor) -> None:
    async with operator_of(gateway) as admin:
        key = await admin.key(models=["sandbox/testcard"])
    await visitor.sign_in(key["key"])
    page = await visitor.get("/console/playground")
    assert re.findall(r"<option[^>]*>(sandbox/[^<]+)</option>", page.text) == ["sandbox/testcard"]
    form = {**FORM, "model": "sandbox/fail", "csrf": await visitor.token()}
    refused = await visitor.post("/console/playground", form)
    assert refused.status_code == 403
    assert "model_not_allowed" in refused.text
    assert "sandbox/fail" not in (await visitor.get("/console/models")).text


async def test_another_model_keeps_what_fits(alice: Visitor) -> None:
    form = {**FORM, "csrf": await alice.token(), "seed": "7", "colour": "red"}
    fields = await alice.post("/console/playground/fields", form)
    assert fields.status_code == 200
    assert 'name="size" value="128x128"' in fields.text
    assert "does not have, or not with this value: " in fields.text
    assert "colour" in fields.text
    unknown = await alice.post("/console/playground/fields", {**form, "model": "no/model"})
    assert unknown.status_code == 400


async def test_a_video_fills_the_form_again(gateway: Running, alice: Visitor) -> None:
    video = await gateway.create(**{name: value for name, value in FORM.items() if name != "n"}, seed=7)
    page = await alice.get(f"/console/playground?from={video['id']}")
    assert ">a paper boat</textarea>" in page.text
    assert 'name="size" value="128x128"' in page.text
    assert (await alice.get("/console/playground?from=video_x")).status_code == 404


async def test_without_scripts_the_page_keeps_what_was_typed(gateway: Running, alice: Visitor) -> None:
    form = {**FORM, "csrf": await alice.token(), "seconds": "soon", "prompt": HOSTILE}
    wrong = await alice.post("/console/playground", form)
    assert wrong.status_code == 400
    assert HOSTILE not in wrong.text
    assert HOSTILE in unescape(wrong.text)
    assert 'value="soon"' in wrong.text
    assert await videos(gateway) == []


async def test_a_form_with_files_needs_its_token_too(gateway: Running, alice: Visitor) -> None:
    files = {
        "first_frame_file": ("frame.png", PNG, "image/png"),
        "last_frame_file": ("", b"", "application/octet-stream"),
    }
    for token, status in (("", 403), ("0" * 64, 403), (await alice.token(), 303)):
        answer = await alice.client.post(
            "/console/playground",
            data={**FORM, "csrf": token, "retry": "a"},
            files=files,
            headers={"sec-fetch-site": "same-origin"},
        )
        assert answer.status_code == status, answer.text
    (video,) = await videos(gateway)
    async with gateway.gateway.db.reading() as connection:
        stored = await get_videos(connection, [video["id"]], project_id=(await me(gateway)))
    assert stored[0].request["first_frame"]["content_type"] == "image/png"
    assert "last_frame" not in stored[0].request


async def me(gateway: Running) -> str:
    return str((await gateway.client.get("/v1/me")).json()["project"]["id"])


async def test_a_finished_video_is_remixed_edited_and_extended(gateway: Running, alice: Visitor) -> None:
    source = await gateway.create(**{name: value for name, value in FORM.items() if name != "n"})
    waiting = await alice.get("/console/playground?mode=extend")
    assert "no finished video" in waiting.text
    await gateway.finish(source["id"])
    token = await alice.token()
    for mode, seconds in (("remix", ""), ("edit", ""), ("extend", "2")):
        page = await alice.get(f"/console/playground?mode={mode}")
        assert f'<option value="{source["id"]}" selected>' in page.text
        assert ('name="seconds"' in page.text) == (mode == "extend")
        form = {"mode": mode, "from": source["id"], "prompt": f"to {mode}", "seconds": seconds, "csrf": token}
        said = await alice.post("/console/playground/price", form)
        assert "≈" in said.text
        made = await alice.post("/console/playground", {**form, "retry": mode})
        assert made.status_code == 303, made.text
        made_id = made.headers["location"].rpartition("/")[2]
        video = await gateway.get(made_id)
        assert (video["prompt"], video["remixed_from_video_id"] is not None) == (f"to {mode}", True)
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "x", "model": "sandbox/testcard"})).json()
    page = await alice.get(f"/console/playground?mode=remix&from={theirs['id']}")
    assert page.status_code == 404


async def test_the_price_comes_with_routes_and_code(start_gateway: StartGateway) -> None:
    routes = ["sandbox/testcard", "sandbox/slow"]
    async with start_gateway(
        models={"house": {"routes": routes}}, prices={"sandbox/testcard": 0.1, "sandbox/slow": 0.2}
    ) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            form = {**FORM, "model": "house", "csrf": await visitor.token(), "first_frame_chosen": "1"}
            said = unescape((await visitor.post("/console/playground/price", form)).text)
            assert "≈ $0.10 for 1 s at sandbox/testcard" in said
            assert "2 routes" in said
            assert "-F input_reference=@first_frame" in said
            assert 'input_reference=open("first_frame", "rb")' in said
            assert 'fs.createReadStream("first_frame")' in said
            assert ALICE not in said


async def test_one_prompt_is_compared_with_other_models(start_gateway: StartGateway) -> None:
    keys = {"ark": {"api_key": "not used"}, "sandbox": {}}
    prices = {"sandbox/testcard": 0.1, "sandbox/slow": 0.2, "sandbox/fail": 0.1}
    async with start_gateway(providers=keys, prices=prices) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            token = await visitor.token()
            form = {**FORM, "csrf": token, "retry": "a", "compare_1": "sandbox/slow", "compare_2": "sandbox/fail"}
            said = unescape((await visitor.post("/console/playground/price", form)).text)
            assert "≈ $0.10 for 1 s at sandbox/testcard" in said
            assert "sandbox/slow: ≈ $0.20 for 1 s at sandbox/slow" in said
            assert "together at most $0.40" in said
            for _ in range(2):
                made = await visitor.post("/console/playground", form, **{"hx-request": "true"})
                assert made.text.count('class="card"') == 3, made.text
            assert sorted(video["model"] for video in await videos(gateway)) == [
                "sandbox/fail",
                "sandbox/slow",
                "sandbox/testcard",
            ]
            wrong = {**form, "retry": "b", "compare_1": "no/model"}
            refused = await visitor.post("/console/playground", wrong, **{"hx-request": "true"})
            assert (refused.status_code, 'data-param="compare_1"' in refused.text) == (400, True)
            long = {**form, "retry": "c", "seconds": "40", "compare_1": "seedance-1.0-pro", "compare_2": ""}
            long |= {"agreed": "5000000", "size": ""}
            part = await visitor.post("/console/playground", long, **{"hx-request": "true"})
            assert part.text.count('class="card"') == 2, "a length that the other model does not have is left out"
            assert len(await videos(gateway)) == 5


async def test_much_money_has_to_have_been_shown(start_gateway: StartGateway) -> None:
    routes = ["sandbox/testcard", "sandbox/slow"]
    prices = {"sandbox/testcard": 0.1, "sandbox/slow": 0.2}
    async with start_gateway(models={"house": {"routes": routes}}, prices=prices) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            form = {**FORM, "model": "house", "seconds": "8", "csrf": await visitor.token(), "retry": "a"}
            said = (await visitor.post("/console/playground/price", form)).text
            assert "≈ $0.80 for 8 s at sandbox/testcard, at most $1.60 if another route has to make it" in unescape(
                said
            )
            assert "data-asks=" in said
            (agreed,) = re.findall(r'name="agreed" value="(\d+)"', said)
            for wrong in ("", "800000", "-5", "9" * 30, "x"):
                refused = await visitor.post("/console/playground", {**form, "agreed": wrong})
                assert (refused.status_code, "price_changed" in refused.text) == (400, True), wrong
            assert await videos(gateway) == []
            made = await visitor.post("/console/playground", {**form, "agreed": agreed})
            assert made.status_code == 303
            assert len(await videos(gateway)) == 1


async def test_files_and_models_that_are_lost_are_named(start_gateway: StartGateway) -> None:
    keys = {"ark": {"api_key": "not used"}, "gptge": {"api_key": "not used"}, "sandbox": {}}
    async with start_gateway(providers=keys) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            form = {**FORM, "csrf": await visitor.token(), "reference_video_chosen": "1"}
            fields = await visitor.post("/console/playground/fields", {**form, "model": "gptge/luma"})
            (dropped,) = re.findall(r"not with this value: ([^<]*)\.</p>", fields.text)
            assert {"Reference video", "Length in seconds"} <= set(dropped.split(", "))
            assert "Length in seconds</label>" not in fields.text
            page = await visitor.get("/console/playground?model=nothing/like-it")
            assert "You may not use nothing/like-it" in page.text
            covered = await visitor.get("/console/playground?model=ark/seedance-1-0-pro-250528")
            assert '<option value="ark/seedance-1-0-pro-250528" selected>' in covered.text
            files = {"input_reference": ("frame.png", PNG, "image/png")}
            data = {"prompt": "x", "model": "sandbox/testcard", "seconds": "1"}
            video = (await gateway.client.post("/v1/videos", data=data, files=files)).json()
            again = await visitor.get(f"/console/playground?from={video['id']}")
            assert "Choose them again: First frame." in again.text


async def test_a_comparison_says_what_was_refused(start_gateway: StartGateway) -> None:
    prices = {"sandbox/testcard": 0.1, "sandbox/slow": 0.2}
    async with start_gateway(prices=prices, admin_key=ADMIN) as gateway:
        async with operator_of(gateway) as admin:
            key = await admin.key(monthly_budget_usd=0.15)
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(key["key"])
            form = {**FORM, "csrf": await visitor.token(), "retry": "a", "compare_1": "sandbox/slow"}
            made = await visitor.post("/console/playground", form, **{"hx-request": "true"})
            assert made.status_code == 200
            assert made.text.count('class="card"') == 1
            assert "budget_exceeded" in made.text


async def test_the_operator_has_no_playground(operator: Visitor) -> None:
    assert (await operator.get("/console/playground")).status_code == 403
    refused = await operator.post("/console/playground", {**FORM, "csrf": await operator.token()})
    assert refused.status_code == 403
    start = await operator.get("/console")
    assert start.headers["location"] == "/console/overview"
    assert ADMIN not in (await operator.get("/console/videos")).text
