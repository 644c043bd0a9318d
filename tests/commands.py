"""Commands of the command line, run in a thread of this process: a process would take ten times as long to start."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from app.cli.main import cli
from app.telemetry.logs import log


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def checks(self) -> dict[str, list[dict[str, str]]]:
        """Results of `doctor --json` by the name of their check."""
        found: dict[str, list[dict[str, str]]] = {}
        for check in self.document["checks"]:
            found.setdefault(check["name"], []).append(check)
        return found

    def one(self, name: str, status: str) -> str:
        """Text and next step of the only result of a check with this status."""
        (check,) = (check for check in self.checks[name] if check["status"] == status)
        return f"{check['text']} -> {check['hint']}"


Command = Callable[..., Awaitable[Done]]
"""Runs `video-gateway` with these arguments and settings."""


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Undo the set-up of logging by the commands, which is for the output that they had; `log` keeps a copy of it."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)
    vars(log).pop("bind", None)


@pytest.fixture
def command(database_url: str, tmp_path: Path, logging_as_before: None) -> Command:
    """Run `video-gateway ARGUMENTS` with these settings on top of a database and a data directory; None removes one."""

    async def run(*arguments: str, environment: Mapping[str, str] | None = None, **settings: Any) -> Done:
        given = {"database_url": database_url, "data_dir": tmp_path / "data", "pepper": "test pepper", **settings}
        values = {f"GATEWAY_{name.upper()}": str(value) for name, value in given.items() if value is not None}
        env = {"NO_PROXY": "127.0.0.1,localhost", **values, **(environment or {})}
        result = await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), env=env)
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(result.exit_code, result.stdout, result.stderr)

    return run
