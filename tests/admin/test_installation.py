"""The settings and the state of the installation in the administration API."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Reset, serve
from fakes.vertex import key_file
from harness import StartGateway
from money import ADMIN, Operator, operator_of

from app.admin.shown_settings import shown_settings
from app.db.migrate import newest_revision
from app.jobs.presence import RELEASE
from app.settings import load, origins

pytestmark = pytest.mark.anyio

TOML = """
retention_s = "12h"
[providers.mine]
kind = "openai"
base_url = "https://api.example.com/v1"
api_key = "sk-sekret-word-0123456789"
[models."clip"]
routes = ["lost/x"]
[prices]
"mine/x" = 0.5
"nothing/x" = inf
"mine/y" = { "720p" = inf }
"""


async def settings_of(operator: Operator, query: str = "") -> tuple[dict[str, tuple[Any, str]], dict[str, Any]]:
    answer = await operator.ask("GET", f"settings{query}")
    return {one["name"]: (one["value"], one["origin"]) for one in answer["data"]}, answer


async def test_settings_are_shown_with_their_origins_and_without_secrets(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "warning")
    monkeypatch.setenv("GATEWAY_LOG_LEVLE", "debug")
    async with start_gateway(admin_key=ADMIN):  # not a new installation: it may be reached with a short key
        pass
    async with start_gateway(admin_key=ADMIN, host="0.0.0.0") as gateway:
        (tmp_path / "gateway.toml").write_text("retention_s = 5\n")  # which the running process has not read
        async with operator_of(gateway) as operator:
            found, answer = await settings_of(operator)
            whole, _ = await settings_of(operator, "?all=true")
            await operator.ask("GET", "settings?every=true", status=400)
    assert found["GATEWAY_RETENTION_S"] == (43_200, "gateway.toml")
    assert found["GATEWAY_LOG_LEVEL"] == ("warning", "environment")
    assert found["GATEWAY_PROVIDERS__MINE__API_KEY"] == ("***6789", "gateway.toml")
    assert found["GATEWAY_PROVIDERS__MINE__BASE_URL"] == ("https://api.example.com/v1", "gateway.toml")
    assert found["GATEWAY_ADMIN_KEY"] == ("***", "command line")
    assert found['prices."nothing/x"'] == ("Infinity", "gateway.toml")
    assert found['prices."mine/y"'] == ({"720p": "Infinity"}, "gateway.toml")
    assert "GATEWAY_LEASE_S" not in found
    assert whole["GATEWAY_LEASE_S"] == (60, "default")
    assert answer["files"] == ["gateway.toml"]
    warnings = {one["text"]: one["next_step"] for one in answer["warnings"]}
    for words in (
        "GATEWAY_LOG_LEVLE",
        "GATEWAY_ADMIN_KEY: it has fewer than 16 characters",
        "the alias clip is left out",
        "the price of nothing/x has no use",
        "public URL not set: vendors cannot call back",
        "/metrics needs no key",
    ):
        assert any(words in text for text in warnings), (words, warnings)
    assert all(warnings.values()), "each has its next step"
    assert "sekret" not in json.dumps([answer, list(whole.values())])


async def test_secrets_of_settings_from_elsewhere_are_masked_too(start_gateway: StartGateway) -> None:
    hidden = {"api_key": "sk-sekret-0123456789", "base_url": "https://api.example.com"}
    settings: dict[str, Any] = {
        "providers": {"mine": {"kind": "openai", **hidden}},
        "api_keys": {"shop": "sk-sekret-of-the-shop"},
        "metrics_key": "sekret-metrics-0123456789",
        "admin_key": ADMIN,
    }
    async with start_gateway(**settings) as gateway, operator_of(gateway) as operator:
        found, answer = await settings_of(operator, "?all=true")
    assert found["GATEWAY_PROVIDERS__MINE__API_KEY"] == ("***6789", "command line")
    assert found["GATEWAY_API_KEYS"] == ({"shop": "***shop"}, "command line")
    assert "sekret" not in json.dumps(answer)
    assert answer["warnings"] == [
        {
            "text": "GATEWAY_ADMIN_KEY: it has fewer than 16 characters and can be guessed",
            "next_step": "make one with openssl rand -hex 32",
        }
    ]


def test_an_option_of_the_command_line_is_its_own_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "8081")
    monkeypatch.setenv("GATEWAY_LEASE_S", "90")
    config = load(port=8082)
    found = {one.name: (one.value, one.origin) for one in shown_settings(config, origins(), {}, every=False)}
    assert found["GATEWAY_PORT"] == (8082, "command line")
    assert found["GATEWAY_LEASE_S"] == (90, "environment")


async def test_a_key_file_that_is_gone_is_a_warning(start_gateway: StartGateway, tmp_path: Path) -> None:
    file = key_file(tmp_path)
    providers = {"vertex": {"credentials_file": str(file)}}
    async with start_gateway(providers=providers, admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        file.unlink()
        _, answer = await settings_of(operator)
    assert any("CREDENTIALS_FILE" in one["text"] and one["next_step"] for one in answer["warnings"]), answer


async def test_status_has_the_schema_of_the_database(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        before = (await operator.ask("GET", "status"))["schema"]
        async with gateway.gateway.db.reading() as connection:
            await connection.exec_driver_sql("update alembic_version set version_num = 'newer'")
            try:
                assert (await operator.ask("GET", "status"))["schema"] == "newer", "which an update has migrated"
            finally:
                await connection.exec_driver_sql(f"update alembic_version set version_num = '{before}'")
    assert before == newest_revision()


async def test_status_shows_what_runs_and_what_waits(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        settings: dict[str, Any] = {"providers": {"up": up}, "prices": {"up/sora-2": 0.5}, "admin_key": ADMIN}
        async with start_gateway(**settings) as gateway, operator_of(gateway) as operator:
            idle = await operator.ask("GET", "status")
            assert (idle["workers"], idle["jobs"], idle["undecided_count"], idle["held_usd"]) == ([], [], 0, 0)
            await gateway.finish((await gateway.create(model="up/sora-2", seconds="4"))["id"])
            fake.script("submit", Reset())
            lost = await gateway.create(model="up/sora-2", seconds="4")
            await gateway.finish(lost["id"])
            await gateway.create(model="up/sora-2", seconds="4", webhook_url="https://example.com/?token=sekret")
            gateway.clock.advance(90)
            found = await operator.ask("GET", "status")
            await operator.ask("GET", "status?x=1", status=400)
    (job,) = found["jobs"]
    assert (job["provider"], job["state"], job["count"], job["oldest_s"]) == ("up", "pending", 1, 90)
    assert (found["undecided_count"], [one["video"] for one in found["undecided"]]) == (1, [lost["id"]])
    assert found["unfinished"] == {"queued": 1, "in_progress": 0}
    assert found["last_24_h"] == {"created": 3, "completed": 1, "failed": 1, "cancelled": 0, "cost_usd": 0.125}
    assert found["held_usd"] == 4
    assert found["webhooks"] == {"pending": 0, "oldest_s": None, "disabled_endpoints": []}
    assert found["version"] == RELEASE
    assert found["schema"].isdecimal()
    assert 0 < found["database_ms"] < 10_000
    assert "sekret" not in json.dumps(found)
