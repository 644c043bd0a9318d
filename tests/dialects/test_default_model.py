"""The dialects of other vendors: the model of a request that names none."""

from typing import Any

import pytest
from dialects.vendors import APILAPLAS, LUMA, asked
from fakes.server import KEY
from harness import StartGateway

from app import settings
from app.dialects import configure

pytestmark = pytest.mark.anyio


async def test_the_default_model_of_a_dialect_comes_from_its_settings(start_gateway: StartGateway) -> None:
    configs = {"luma": {"model": "cards"}, "apilaplas": {"model": "sandbox/slow"}}
    aliases = {"cards": {"routes": ["sandbox/testcard"]}, "ray-2": {"routes": ["sandbox/fail"]}}
    up = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": KEY}
    values: dict[str, Any] = {"providers": {"up": up}, "models": aliases}
    async with start_gateway(dialects=configs, **values) as gateway:
        assert (await asked(gateway, LUMA, {"user_prompt": "p"})).model == "cards"
        assert (await asked(gateway, LUMA, {"user_prompt": "p", "model_name": "ray-v2"})).model == "cards"
        assert (await asked(gateway, LUMA, {"user_prompt": "p", "model_name": "ray-2"})).model == "ray-2"
        assert (await asked(gateway, LUMA, {"user_prompt": "p", "model": "up/any"})).model == "up/any"
        assert (await asked(gateway, APILAPLAS, {"prompt": "p"})).model == "sandbox/slow"
        assert (await asked(gateway, APILAPLAS, {"prompt": "p", "model": "ray-1-6"})).model == "sandbox/slow"
        response = await gateway.client.post(APILAPLAS, json={"prompt": "p", "model": "sora-9"})
        assert response.status_code == 404
    async with start_gateway(default_model="sandbox/slow", **values) as gateway:
        assert (await asked(gateway, LUMA, {"user_prompt": "p"})).model == "sandbox/slow"
    async with start_gateway(**values) as gateway:
        response = await gateway.client.post(LUMA, json={"user_prompt": "p"})
        assert response.status_code == 400
        assert "GATEWAY_DIALECTS__LUMA__MODEL" in response.json()["message"]
        response = await gateway.client.post(APILAPLAS, json={"prompt": "p"})
        assert response.json()["statusCode"] == "400"
        assert "GATEWAY_DIALECTS__APILAPLAS__MODEL" in response.json()["message"]


def test_dialect_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DIALECTS__LUMA__MODEL", "gptge/luma")
    assert configure(settings.load())["luma"].model_dump() == {"model": "gptge/luma", "hold_s": 60}
    monkeypatch.setenv("GATEWAY_DIALECTS__LUNOS__MODEL", "x")
    with pytest.raises(settings.ConfigurationError, match="GATEWAY_DIALECTS__LUNOS"):
        configure(settings.load())
