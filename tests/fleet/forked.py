"""Worker processes that start quickly: forked from a server that has imported the gateway, each a real process that
real signals stop."""

import asyncio
import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from processes import PATIENCE_S, until

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["app.cli.main"])


def _work(environment: dict[str, str], log_file: str) -> None:
    """The process: `video-gateway worker`, with its output in a file."""
    from app.cli.main import worker

    os.environ.update(environment)
    with open(log_file, "w", buffering=1) as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        worker()


class Forked:
    """A worker process, by whose name the database knows it."""

    def __init__(self, name: str, folder: Path, **settings: Any) -> None:
        """Start `video-gateway worker` with these settings."""
        environment = {f"GATEWAY_{key.upper()}": str(value) for key, value in settings.items()}
        environment["PGOPTIONS"] = f"-c fleet.who={name}"
        self.name = name
        self._log_file = folder / f"{name}.log"
        self._process: ForkServerProcess = _FORKS.Process(target=_work, args=(environment, str(self._log_file)))
        self._process.start()

    @property
    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""

    async def until_started(self) -> None:
        async def look() -> bool | None:
            assert self._process.is_alive(), self.log
            return True if "worker started" in self.log else None

        await until(look)

    def signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def end(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        await asyncio.to_thread(self._process.join, PATIENCE_S)
        assert self._process.exitcode is not None, self.log
        return self._process.exitcode

    async def kill(self) -> None:
        self._process.kill()
        await self.end()
