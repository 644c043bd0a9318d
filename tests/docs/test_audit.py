"""The settings, calls and commands of docs/audit.md."""

import json
import re
import tomllib
from pathlib import Path

import pages
import psycopg
import pytest
from admin.test_audit import CHANGES
from cli.test_audit import CHANGING
from commands import Command
from fakes.server import serve
from harness import StartGateway
from money import ADMIN, operator_of

from app.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/audit.md")
TOML, CALL, SHOWN = PAGE.one("toml"), PAGE.one("sh", "curl"), json.loads(PAGE.one("json"))
COMMANDS, SIZE = PAGE.one("sh", "video-gateway audit"), PAGE.one("sql")


def test_the_table_has_every_action() -> None:
    rows = [line for line in PAGE.text.splitlines() if line.startswith("| `")]
    named = {action for row in rows for action in re.findall(r"`(\w+\.\w+)`", row.split("|")[1])}
    assert named == {action for actions in CHANGES.values() for action in actions} | set(CHANGING.values())


def test_the_keys_are_settings() -> None:
    keys = Settings(_env_file=None, **tomllib.loads(TOML)).operators
    assert {name: given.role for name, given in keys.items()} == {"alice": "write", "dashboard": "read"}


async def test_the_audit_log_is_read_and_measured(
    start_gateway: StartGateway, command: Command, database_url: str, tmp_path: Path
) -> None:
    async with (
        start_gateway(admin_key=ADMIN) as gateway,
        serve(gateway.app) as url,
        operator_of(gateway) as admin,
    ):
        key = await admin.key("web")
        env = {"GATEWAY": url, "GATEWAY_ADMIN_KEY": ADMIN}
        made = json.loads(await pages.shell(CALL.replace("curl ", "curl -sf "), folder=tmp_path, **env))
        (entry,) = made["data"]
        assert (entry["action"], entry["subject"]) == ("key.create", key["id"])
        await admin.ask("PATCH", f"projects/{key['project']}", monthly_budget_usd=50)
        await admin.ask("PATCH", f"projects/{key['project']}", monthly_budget_usd=80)
        changed = await admin.ask("GET", "audit?action=project.change&limit=1")
        assert pages.shape({**changed, "has_more": False}) == pages.shape(SHOWN)
        await admin.ask("DELETE", f"keys/{key['id']}")
    printed = []
    for program, *words in pages.commands(COMMANDS):
        assert program == "video-gateway"
        done = await command(*words)
        assert done.code == 0, done.err
        printed.append(done.out)
    assert "key.create" in printed[0]
    assert [entry["action"] for entry in json.loads(printed[1])["entries"]] == ["key.revoke"]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        (row,) = await (await connection.execute(SIZE.encode())).fetchall()
    assert row[0] == 5
