"""The playground: the form of a model, its price, and the video that it makes once."""

import re
from typing import Any

import pytest
from console.conftest import Visitor, visitor_at
from harness import ALICE, Running, StartGateway
from money import ADMIN, operator_of

pytestmark = pytest.mark.anyio

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
    assert other.status_code == 409


async def test_a_page_with_scripts_gets_the_card_and_a_fresh_form(alice: Visitor) -> None:
    form = {**FORM, "csrf": await alice.token(), "retry": "a"}
    made = await alice.post("/console/playground", form, **{"hx-request": "true"})
    assert made.status_code == 200
    assert made.text.count('class="card"') == 1
    assert re.search(r'id="retry" name="retry" value="[\w-]{20,}"', made.text)
    assert "curl http://gateway.test/v1/videos" in made.text
    assert ALICE not in made.text


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
    ):
        wrong = await alice.post("/console/playground", {**FORM, "csrf": token, **change}, **{"hx-request": "true"})
        if wrong.status_code == 200:
            assert change == {"first_frame": "http://127.0.0.2/x"}  # a private address that these settings allow
            continue
        assert wrong.status_code in (400, 404), (change, wrong.text)
        assert wrong.headers["hx-retarget"] == "#status"
        assert 'role="alert"' in wrong.text
        assert words in wrong.text
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
    assert "does not have: " in fields.text
    assert "colour" in fields.text
    unknown = await alice.post("/console/playground/fields", {**form, "model": "no/model"})
    assert unknown.status_code == 400


async def test_a_video_fills_the_form_again(gateway: Running, alice: Visitor) -> None:
    video = await gateway.create(**{name: value for name, value in FORM.items() if name != "n"}, seed=7)
    page = await alice.get(f"/console/playground?from={video['id']}")
    assert ">a paper boat</textarea>" in page.text
    assert 'name="size" value="128x128"' in page.text
    assert (await alice.get("/console/playground?from=video_x")).status_code == 404


async def test_the_operator_has_no_playground(operator: Visitor) -> None:
    for path in ("/console/playground", "/console/models"):
        assert (await operator.get(path)).status_code == 403
    start = await operator.get("/console")
    assert start.headers["location"] == "/console/videos"
    assert ADMIN not in (await operator.get("/console/videos")).text
