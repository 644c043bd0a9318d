"""`video-gateway config`: each setting with its origin, secrets masked, and mistakes found without a start."""

from pathlib import Path
from typing import Any

import pytest
from commands import Command
from fakes.server import closed_port
from processes import ran

from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

TOML = """
retention_s = "12h"
log_level = "debug"
[api_keys]
"web shop" = "sk-of-the-web-shop-0123"
[models."sora-2"]
routes = ["lumen/seedance-2"]
[prices]
"lumen/seedance-2" = 0.25
[providers.lumen]
api_key = "sk-lumen-0123456789"
timeout_s = 30
[providers.mine]
kind = "openai"
base_url = "https://api.example.com/v1"
password = "sekret-word-0123456789"
"""


async def shown(command: Command, *options: str, **settings: Any) -> dict[str, tuple[Any, str]]:
    found = await command("config", "show", "--json", *options, **settings)
    assert found.code == 0, found.err
    return {row["name"]: (row["value"], row["origin"]) for row in found.document["settings"]}


async def test_each_setting_has_its_value_and_its_origin(command: Command, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    (tmp_path / ".env").write_text("GATEWAY_PORT=8081\nGATEWAY_LOG_LEVEL=info\nGATEWAY_PROVIDERS__LUMEN__ENABLED=no\n")
    values = {"port": 8082, "providers__lumen__timeout_s": 45, "database_url": "postgresql://me:sekret@db/gateway"}
    admins = '{"alice": "adm-alice-0123456789", "bob": {"key": "short too", "role": "read"}}'
    found = await shown(command, **values, pepper="0123456789abcdef", admin_key="short", admin_keys=admins)
    assert found == {
        "GATEWAY_DATABASE_URL": ("postgresql://me:***@db/gateway", "environment"),
        "GATEWAY_DATA_DIR": (str(tmp_path / "data"), "environment"),
        "GATEWAY_PORT": (8082, "environment"),
        "GATEWAY_API_KEYS": ({"web shop": "***0123"}, "gateway.toml"),
        "GATEWAY_ADMIN_KEY": ("***", "environment"),
        "GATEWAY_ADMIN_KEYS": (
            {"alice": {"key": "***6789", "role": "write"}, "bob": {"key": "***", "role": "read"}},
            "environment",
        ),
        "GATEWAY_PEPPER": ("***cdef", "environment"),
        "GATEWAY_PROVIDERS__LUMEN__TIMEOUT_S": ("45", "environment"),
        "GATEWAY_PROVIDERS__LUMEN__ENABLED": ("no", ".env"),
        "GATEWAY_PROVIDERS__LUMEN__API_KEY": ("***6789", "gateway.toml"),
        "GATEWAY_PROVIDERS__MINE__KIND": ("openai", "gateway.toml"),
        "GATEWAY_PROVIDERS__MINE__BASE_URL": ("https://api.example.com/v1", "gateway.toml"),
        "GATEWAY_PROVIDERS__MINE__PASSWORD": ("***6789", "gateway.toml"),
        'prices."lumen/seedance-2"': (0.25, "gateway.toml"),
        'models."sora-2"."routes"': (["lumen/seedance-2"], "gateway.toml"),
        "GATEWAY_RETENTION_S": (43_200, "gateway.toml"),
        "GATEWAY_LOG_LEVEL": ("info", ".env"),
    }
    listed = await command("config", "show", **values)
    (row,) = (line.split() for line in listed.out.splitlines() if "LUMEN__API_KEY" in line)
    assert row == ["GATEWAY_PROVIDERS__LUMEN__API_KEY", "***6789", "gateway.toml"]
    assert listed.out.splitlines()[-1] == "Files read: .env, gateway.toml."


async def test_all_settings_are_shown_on_demand(command: Command, tmp_path: Path) -> None:
    found = await shown(command, "--all", pepper=None, public_url="https://me:sekret@video.example.com/?key=sekret")
    assert found["GATEWAY_PEPPER"] == (None, "default")
    assert found["GATEWAY_LEASE_S"] == (60, "default")
    assert found["GATEWAY_PUBLIC_URL"] == ("https://video.example.com/", "environment")
    (tmp_path / "other.toml").write_text("port = 1\n")
    named = await shown(command, environment={"GATEWAY_CONFIG": "other.toml"})
    assert named["GATEWAY_PORT"] == (1, "other.toml")


async def test_an_address_that_cannot_be_read_is_masked_whole(command: Command) -> None:
    found = await shown(command, database_url="postgresql://me:sekret@word@db/gateway")
    assert found["GATEWAY_DATABASE_URL"] == ("***", "environment")


async def test_check_prints_what_a_start_would_warn_of(command: Command, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[models.lost]\nroutes = ["nope/x"]\n')
    away = f"postgresql://{closed_port()[7:]}/x?pgbouncer=true"  # it is not reached
    found = await command("config", "check", database_url=away, databse_url="x", default_model="gone", api_keys="short")
    assert found.code == 0
    assert found.out.splitlines()[-1] == "The settings can be used."
    lines = [line.removeprefix("warning  ") for line in found.out.splitlines()[:-1]]
    assert [line.split(" ")[0] for line in lines[:1]] == ["GATEWAY_DATABSE_URL"]
    for words in (
        "alias left out: alias lost, nope/x: there is no provider nope",
        "GATEWAY_PEPPER: it has fewer than 16 characters",
        "GATEWAY_API_KEYS: a key in it has fewer",
        "GATEWAY_DATABASE_URL: the option pgbouncer is dropped",
        "GATEWAY_DEFAULT_MODEL: the model 'gone' does not exist",
    ):
        assert any(line.startswith(words) for line in lines), words
    assert len(lines) == 6
    assert not (tmp_path / "data").exists()
    (tmp_path / "gateway.toml").unlink()
    sound = await command("config", "check", pepper="a pepper that is long enough")
    assert sound.out == "The settings can be used.\n"


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "dialect": ({"dialects__luma__modle": "x"}, "GATEWAY_DIALECTS__LUMA__MODLE: "),
    "provider": (
        {"providers__openai__api_key": "x", "providers__openai__base_url": "x"},
        "GATEWAY_PROVIDERS__OPENAI__BASE_URL: ",
    ),
    "database": ({"database_url": "postgresql://me:sekret@word@db/x"}, "GATEWAY_DATABASE_URL cannot be read"),
    "strict": ({"strict": "true", "databse_url": "x"}, "GATEWAY_DATABSE_URL is not a setting"),
    "bucket": ({"storage_url": "s3://"}, "GATEWAY_STORAGE_URL: "),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_check_refuses_what_a_start_would_refuse(name: str, command: Command) -> None:
    settings, message = REFUSED[name]
    with pytest.raises(ConfigurationError) as caught:
        await command("config", "check", **settings)
    assert str(caught.value).startswith(message)
    assert "sekret" not in str(caught.value)


async def test_a_refusal_is_one_message_and_exit_code_1(tmp_path: Path) -> None:
    child = await ran("config", "check", cwd=tmp_path, code=1, port="x")
    assert child.out == []
    assert child.err == [line for line in child.err if line.startswith("video-gateway: GATEWAY_PORT: ")]
