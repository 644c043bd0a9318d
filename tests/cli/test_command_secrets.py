"""No secret of any setting is in the output of doctor, config show, config check and status, whatever fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from fakes.server import closed_port, serve
from processes import provider
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

MARK = "SEKRET"
COMMANDS = (
    *(("doctor",), ("doctor", "--json"), ("config", "check"), ("status",), ("status", "--json")),
    *(("config", "show"), ("config", "show", "--all"), ("config", "show", "--all", "--json")),
)
MODES = ("401", "403", "404", "400", "500", "302", "page", "state")


class Echo:
    """An upstream that repeats the key in each of its answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        key, mode = request.headers.get("authorization", ""), request.url.path.split("/")[1]
        error = {"message": f"no {key}", "code": key}
        answer: Response = JSONResponse({"id": key, "status": key, "error": None})
        if mode == "302":
            answer = Response(status_code=302, headers={"location": f"/?key={key.replace(' ', '')}"})
        elif mode == "page":
            answer = Response(f"<h1>{key}</h1>")
        elif mode.isdigit():
            answer = JSONResponse({"error": error}, int(mode))
        await answer(scope, receive, send)


def settings_of(upstream: str, database: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "database_url": database,
        "api_keys": json.dumps({"web shop": f"sk-{MARK}-shop-0123456789", "other": f"{MARK}x"}),
        "admin_key": f"{MARK}-admin-0123456789",
        "admin_keys": json.dumps({"a": f"{MARK}-a-0123456789", "b": {"key": f"{MARK}-b", "role": "read"}}),
        "metrics_key": f"{MARK}-metrics",
        "pepper": f"{MARK}-pepper-0123456789",
        "public_url": f"http://me:{MARK}-word@127.0.0.1:9/?key={MARK}",
        "providers__lumen__api_kye": f"sk-{MARK}-mistyped-0123456789",
        "default_model": "gone",
        "run_worker": "false",
    }
    for mode in MODES:
        key = f"sk-{MARK}-{mode}-0123456789"
        values |= provider(upstream, called=f"up{mode}", base_url=f"{upstream}/{mode}", api_key=key)
    return values


async def output_of(command: Command, arguments: tuple[str, ...], settings: dict[str, Any]) -> str:
    environment = {f"AWS_{name}": f"{MARK}-{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    try:
        done = await command(*arguments, environment={**environment, "AWS_REGION": "eu-west-1"}, **settings)
    except ConfigurationError as error:
        return str(error)
    return done.out + done.err


async def test_no_command_shows_a_secret(command: Command, database_url: str, tmp_path: Path) -> None:
    away = f"postgresql://me:{MARK}%20word@{closed_port()[7:]}/x"
    unreadable = f"postgresql://me:{MARK}@{MARK}@db:{MARK}/x"
    async with serve(Echo()) as upstream:
        sound = settings_of(upstream, database_url)
        del sound["providers__lumen__api_kye"]
        cases: dict[str, dict[str, Any]] = {
            "reached": sound,
            "mistyped": settings_of(upstream, database_url),
            "away": {**sound, "database_url": away, "database_listen_url": away},
            "unreadable": {**sound, "database_url": unreadable, "database_listen_url": unreadable},
            "invalid": {**sound, "port": MARK, "log_level": MARK, "providers__up401__timeout_s": MARK},
        }
        found = {
            (name, *arguments): await output_of(command, arguments, settings)
            for name, settings in cases.items()
            for arguments in COMMANDS
        }
    assert {key: text for key, text in found.items() if MARK in text} == {}
    assert "refuses the gateway's credentials (401)" in found["reached", "doctor"]
    assert "***6789" in found["reached", "config", "show"]
    assert "the database cannot be reached" in found["away", "doctor"]
    assert "GATEWAY_PORT" in found["invalid", "status"]
