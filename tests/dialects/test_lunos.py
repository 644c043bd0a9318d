"""The Lunos dialect: fields, and ids with colons."""

from typing import Any

import pytest
from dialects.case import DialectCase, Inputs, vendor_case
from dialects.vendors import LUNOS, UNKNOWN_ID, asked, fresh
from harness import Running, StartGateway
from money import ADMIN, operator_of

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
CASES: dict[str, DialectCase] = {
    prefix: vendor_case(LUNOS, error_message, inputs=INPUTS) for prefix in ("/v1/video/", "/public/")
}
MODELS = "/public/models"


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
    request = await asked(gateway, LUNOS, fresh(parameters={"aspectRatio": "9:16"}))
    assert request.aspect_ratio == "9:16"


@pytest.mark.parametrize("prefix", ["video-op:user123:", "video-op%3Auser123%3A", "a/b:", ":"])
async def test_lunos_ids_may_have_colons(gateway: Running, prefix: str) -> None:
    video_id = (await gateway.create())["id"]
    assert (await gateway.client.get(f"{LUNOS}/{prefix}{video_id}")).json()["id"] == video_id
    for unknown in (f"{prefix}1703123456789", f"{prefix}{UNKNOWN_ID}"):
        response = await gateway.client.get(f"{LUNOS}/{unknown}")
        assert response.status_code == 404
        assert isinstance(response.json()["error"], str)


async def test_the_model_list_has_the_shape_that_the_client_reads(gateway: Running) -> None:
    listed = (await gateway.client.get(MODELS)).json()
    names = [model["id"] for model in (await gateway.client.get("/v1/models")).json()["data"]]
    assert [model["id"] for model in listed] == names
    [card] = [model for model in listed if model["id"] == "sandbox/testcard"]
    assert card == {
        "id": "sandbox/testcard",
        "name": "sandbox/testcard",
        "description": "Video model of Sandbox",
        "provider": "sandbox",
        "parameters": {"context": None, "max_output_tokens": None, "size": None},
        "pricePerMillionTokens": {"input": None, "output": None},
        "capabilities": ["video-generation"],
        "status": "available",
    }


async def test_the_model_list_needs_a_key_and_has_only_its_models(start_gateway: StartGateway) -> None:
    models = {"clip": {"routes": ["sandbox/fail", "sandbox/slow"]}}
    async with start_gateway(admin_key=ADMIN, models=models) as gateway, operator_of(gateway) as operator:
        for headers in ({"authorization": ""}, {"authorization": "Bearer sk-unknown"}):
            refused = await gateway.client.get(MODELS, headers=headers)
            assert refused.status_code == 401
            assert error_message(refused.json())
        key = await operator.key(models=["clip", "sandbox/t*"])
        async with operator.user(key) as client:
            names = [model["id"] for model in (await client.get(MODELS)).json()]
    assert names == ["clip", "sandbox/testcard"]
