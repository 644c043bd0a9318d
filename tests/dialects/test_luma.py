"""The Luma dialect: fields, and many tasks in one request."""

from typing import Any

import pytest
from dialects.case import PICTURE_URL, DialectCase, Inputs, flat_message, has_picture, vendor_case
from dialects.vendors import LUMA, SMALL, UNKNOWN_ID, asked
from harness import Running

pytestmark = pytest.mark.anyio

INPUTS = Inputs(
    prompt="user_prompt",
    structured=("image_url", {"url": PICTURE_URL}),
    keyed={"image_url[url]": PICTURE_URL},
    read=has_picture,
    picture=lambda value: {"image_url": value},
    picture_param="image_url",
    picture_part="image_url",
)
CASES: dict[str, DialectCase] = {
    "/luma/": vendor_case(
        LUMA,
        flat_message("code", "message", "data"),
        body={"user_prompt": "a paper boat"},
        bad_body={"user_prompt": " "},
        inputs=INPUTS,
    ),
}


# Fields


async def test_luma_fields_are_read(gateway: Running) -> None:
    body = {
        "user_prompt": "a boat",
        "expand_prompt": True,
        "loop": True,
        "aspect_ratio": "9:16",
        "duration": "9s",
        "resolution": "720p",
        "model_name": "ray-v2",
        "camera": "pan",
    }
    request = await asked(gateway, LUMA, body)
    assert (request.model, request.seconds, request.size) == ("sandbox/testcard", 9, "720x1280")
    assert (request.expand_prompt, request.loop, request.extra) == (True, True, {"camera": "pan"})
    request = await asked(gateway, LUMA, {"user_prompt": "a boat", "loop": False, "image_url": "", "notify_hook": ""})
    assert (request.loop, request.first_frame, request.webhook) == (None, None, None)


# Many at once, and waiting


async def test_many_tasks_of_luma_are_read_in_one_request(gateway: Running) -> None:
    ids = [(await gateway.create(**SMALL))["id"] for _ in range(3)]
    theirs = (await gateway.bob.post(LUMA, json={"user_prompt": "p"})).json()["id"]
    response = await gateway.client.post("/luma/tasks", json={"ids": [ids[2], UNKNOWN_ID, theirs, ids[0], "x", ids[0]]})
    assert [task["id"] for task in response.json()] == [ids[2], ids[0]]
    assert response.json()[1] == (await gateway.client.get(f"{LUMA}/{ids[0]}")).json()
    form = {"ids[]": (None, ids[1])}
    assert len((await gateway.client.post("/luma/tasks", files=form)).json()) == 1
    refused: list[dict[str, Any]] = [{}, {"ids": []}, {"ids": "x"}, {"ids": ["x"] * 101}, {"ids": [1]}]
    for wrong in refused:
        assert (await gateway.client.post("/luma/tasks", json=wrong)).status_code == 400
    assert (await gateway.bob.post("/luma/tasks", json={"ids": ids})).json() == []
