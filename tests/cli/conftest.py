"""Commands that are run in this process, in a thread of their own: a process would take ten times as long to start."""

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from commands import Command, Done
from typer.testing import CliRunner

from app.cli.main import cli
from app.telemetry import log


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


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that other users may pass through, as the embedded database's user must."""
    with tempfile.TemporaryDirectory(prefix="video-gateway-") as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()
