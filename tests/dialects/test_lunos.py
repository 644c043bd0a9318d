"""The Lunos dialect: fields, and ids with colons."""

from typing import Any

import pytest
from dialects.case import DialectCase, Inputs, vendor_case
from dialects.vendors import LUNOS, UNKNOWN_ID, asked, fresh
from harness import Running

pytestmark = pytest.mark.anyio


def error_message(body: Any) -> str:
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    return body["error"]


INPUTS = Inputs(
    prompt="prompt",
    structured=("parameters", {"negativePrompt": "rain"}),
    keyed={"parameters[negativePrompt]": "rain"},
    read=lambda request: request.negative_prompt == "rain",
)
CASES: dict[str, DialectCase] = {"/v1/video/": vendor_case(LUNOS, error_message, inputs=INPUTS)}


async def test_lunos_fields_are_read(gateway: Running) -> None:
    parameters = {"aspectRatio": "16:9", "negativePrompt": "rain"}
    body = fresh(parameters=parameters, response_format="mp4", user="u1", appId="shop")
    request = await asked(gateway, LUNOS, body, headers={"x-app-id": "Unknown"})
    assert (request.aspect_ratio, request.negative_prompt, request.user, request.app) == ("16:9", "rain", "u1", "shop")
    assert request.extra == {}
    request = await asked(gateway, LUNOS, fresh(parameters={}), headers={"x-app-id": "till"})
    assert request.app == "till"
    request = await asked(gateway, LUNOS, fresh(parameters=None))
    assert request.app is None


@pytest.mark.parametrize("prefix", ["video-op:user123:", "video-op%3Auser123%3A", "a/b:", ":"])
async def test_lunos_ids_may_have_colons(gateway: Running, prefix: str) -> None:
    video_id = (await gateway.create())["id"]
    assert (await gateway.client.get(f"{LUNOS}/{prefix}{video_id}")).json()["id"] == video_id
    for unknown in (f"{prefix}1703123456789", f"{prefix}{UNKNOWN_ID}"):
        response = await gateway.client.get(f"{LUNOS}/{unknown}")
        assert response.status_code == 404
        assert isinstance(response.json()["error"], str)
