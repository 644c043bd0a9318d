"""The audit log of the command line: every command that changes the database writes an entry."""

import os
import pwd
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import Command, Done
from harness import scratch_database

from app.cli.main import cli

pytestmark = pytest.mark.anyio

CHANGING = {
    "keys create": "key.create",
    "keys update": "key.change",
    "keys revoke": "key.revoke",
    "projects create": "project.create",
    "projects update": "project.change",
    "projects credit": "project.credit",
    "pepper adopt": "pepper.adopt",
    "migrate": "schema.migrate",
    "restore": "database.restore",  # in test_backup.py
    "restored": "database.restore",
}
"""The commands that change the database, with their actions; each is driven by a test below."""
OTHERS = {
    *("serve", "worker"),  # the gateway itself
    "generate",  # a client
    "cancel",  # a client
    "console-link",  # a session of a browser changes nothing
    *("keys list", "projects list", "config show", "config check"),
    "backup",
    *("audit", "usage", "doctor", "status", "providers", "models", "alias"),
}
ME = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def test_every_command_is_known_to_change_something_or_not() -> None:
    group: Any = typer.main.get_command(cli)
    names = {
        f"{name} {inner}" if inner else name
        for name, command in group.commands.items()
        for inner in (getattr(command, "commands", None) or [""])
    }
    assert names == CHANGING.keys() | OTHERS


async def newest(command: Command, **settings: Any) -> dict[str, Any]:
    done = await command("audit", "--json", "--limit", "1", **settings)
    assert done.code == 0, done.err
    (entry,) = done.document["entries"]
    assert entry["actor"] == {"kind": "cli", "name": ME, "address": None}
    assert entry["request_id"] is None
    return dict(entry)


async def test_every_command_that_changes_something_writes_an_entry(command: Command) -> None:
    seen = {}

    async def run(*arguments: str, **settings: Any) -> Done:
        done = await command(*arguments, **settings)
        assert done.code == 0, done.err
        entry = await newest(command, **settings)
        seen[" ".join(word for word in arguments[:2] if not word.startswith("-"))] = entry["action"]
        assert (entry["before"] is None) == entry["action"].endswith((".create", ".credit", ".adopt", ".restore"))
        return done

    project = (await run("projects", "create", "shop", "--monthly-budget", "5")).out.strip()
    await run("projects", "update", "shop", "--monthly-budget", "none", "--name", "Shop")
    assert (await newest(command))["before"] == {"name": "shop", "monthly_budget_usd": 5}
    await run("projects", "credit", project, "12.50", "--reference", "invoice 1")
    assert (await newest(command))["after"] == {"amount_usd": 12.5, "reference": "invoice 1"}
    secret = (await run("keys", "create", "web", "--project", "Shop")).out.strip()
    key_id = (await newest(command))["subject"]
    await run("keys", "update", key_id, "--monthly-budget", "3", "--concurrent-jobs", "2")
    assert (await newest(command))["after"] == {"concurrent_jobs": 2, "monthly_budget_usd": 3}
    await run("keys", "revoke", key_id)
    await run("pepper", "adopt", "--yes", pepper="another pepper")
    assert (await newest(command))["after"] == {"useless_keys": 0}
    await run("restored", "--yes")
    assert seen == {name: action for name, action in CHANGING.items() if name not in ("migrate", "restore")}
    whole = (await command("audit", "--json")).out
    assert [text for text in (secret, "another pepper", "test pepper") if text in whole] == []


async def test_a_command_that_fails_or_changes_nothing_writes_no_entry(command: Command) -> None:
    await command("projects", "create", "shop")
    before = (await command("audit", "--json")).document
    for arguments in (("projects", "update", "shop"), ("projects", "list"), ("keys", "list"), ("usage",), ("status",)):
        assert (await command(*arguments)).code == 0
    assert (await command("audit", "--json")).document == before


async def test_a_migration_writes_its_entry(command: Command, postgres: str) -> None:
    async with scratch_database(postgres) as url:
        for _ in range(2):
            assert (await command("migrate", database_url=url)).code == 0
        done = await command("audit", "--json", database_url=url)
        (entry,) = done.document["entries"]
        assert (entry["action"], entry["subject"], entry["before"]) == ("schema.migrate", "schema", None)
        assert entry["actor"]["name"] == ME


async def test_the_table_is_for_people(command: Command, tmp_path: Path) -> None:
    await command("projects", "create", "a [bold]b")
    await command("projects", "update", "a [bold]b", "--name", "c")
    await command("projects", "create", "other")
    shown = (await command("audit", "--action", "project.change")).out.splitlines()
    assert len(shown) == 2
    assert f"cli:{ME}" in shown[1]
    assert 'name: "a [bold]b" → "c"' in shown[1]
    today = (await command("audit", "--json", "--actor", ME, "--since", "2000-01-01", "--until", "9999-12-31")).document
    assert [entry["action"] for entry in today["entries"]] == ["project.create", "project.change", "project.create"]
    assert (await command("audit", "--json", "--project", "c")).document["entries"] == today["entries"][1:]
    assert (await command("audit", "--json", "--until", "2000-01-01")).document == {"entries": []}
