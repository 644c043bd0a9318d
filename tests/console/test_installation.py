"""The settings in the console: values with their origins, warnings with a next step, and nothing secret."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from console.conftest import Visitor, visitor_at
from console.tables import row_of, rows, text_of
from harness import ALICE, BOB, StartGateway
from money import ADMIN, operator_of

from app.admin.shown_settings import secrets_of

pytestmark = pytest.mark.anyio

PAGE = "/console/settings"
HOSTILE = "<img src=x onerror=alert(1)>"
TOML = """
retention_s = "12h"
[providers.mine]
kind = "openai"
base_url = "https://api.example.com/v1"
api_key = "sk-sekret-word-0123456789"
[models."<img src=x onerror=alert(1)>"]
routes = ["lost/x"]
[prices]
"mine/x" = 0.5
"nothing/x" = inf
"""
SECRET: dict[str, Any] = {
    "admin_key": ADMIN,
    "admin_keys": {"reader": {"key": "sekret-of-the-reader", "role": "read"}},
    "api_keys": {"shop": "sk-sekret-of-the-shop"},
    "metrics_key": "sekret-metrics-0123456789",
    "pepper": "sekret-pepper-0123456789",
}


async def test_settings_are_shown_with_their_origins(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "warning")
    monkeypatch.setenv("GATEWAY_LOG_LEVLE", "debug")
    async with start_gateway(**SECRET) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client, operator_of(gateway) as admin:
            await visitor.sign_in(ADMIN)
            page = (await visitor.get(PAGE)).text
            whole = (await visitor.get(f"{PAGE}?all=true")).text
            same = await admin.ask("GET", "settings?all=true")
        hidden = secrets_of(gateway.gateway.settings)
    assert row_of(page, "GATEWAY_RETENTION_S") == ["GATEWAY_RETENTION_S", "43200", "gateway.toml"]
    assert row_of(page, "GATEWAY_LOG_LEVEL") == ["GATEWAY_LOG_LEVEL", "warning", "environment"]
    assert row_of(page, "GATEWAY_PROVIDERS__MINE__API_KEY")[1:] == ["***6789", "gateway.toml"]
    assert row_of(page, "GATEWAY_API_KEYS")[1:] == ['{"shop": "***shop"}', "command line"]
    assert "GATEWAY_LEASE_S" not in page
    assert row_of(whole, "GATEWAY_LEASE_S")[1:] == ["60", "default"]
    assert [row[0] for row in rows(whole)[1:]] == [one["name"] for one in same["data"]], "as the API lists them"
    assert "It has read gateway.toml" in text_of(page)
    for warning in same["warnings"]:
        assert f"{warning['text']} Next step: {warning['next_step']}" in text_of(page)
    assert any("GATEWAY_LOG_LEVLE" in warning["text"] for warning in same["warnings"])
    assert "<img" not in page + whole
    assert HOSTILE in unescape(page)
    assert len(hidden) >= 6, "the database's address and password, the keys, the pepper"
    for secret in hidden:
        for shown in (page, whole):
            assert secret not in unescape(shown)
            assert json.dumps(secret)[1:-1] not in unescape(shown)
    assert "sekret" not in page + whole


async def test_warnings_that_are_not_there_are_not_shown(operator: Visitor) -> None:
    page = text_of((await operator.get(PAGE)).text)
    assert "It has read no file." in page
    assert "no vendor is configured" in page
    assert "There are no warnings." not in page


async def test_settings_are_the_operators_alone(alice: Visitor, visitor: Visitor, operator: Visitor) -> None:
    for path in (PAGE, f"{PAGE}?all=true"):
        refused = await alice.get(path)
        assert (refused.status_code, "GATEWAY_API_KEYS" in refused.text) == (403, False)
        assert (await visitor.get(path)).status_code == 303
        page = (await operator.get(path)).text
        assert ALICE not in page
        assert BOB not in page
    for query in ("every=true", "all=perhaps", "all=true&all=true"):
        assert (await operator.get(f"{PAGE}?{query}")).status_code == 400, query
