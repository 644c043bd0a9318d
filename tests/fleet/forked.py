"""Worker processes that start quickly: forked from a server that has imported the gateway, each a real process that
real signals stop."""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from processes import PATIENCE_S

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
    """A worker process."""

    def __init__(self, process: ForkServerProcess, log_file: Path) -> None:
        self._process = process
        self._log_file = log_file
        self.gone = asyncio.Event()
        """Set by the one who has ended it."""

    @property
    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""

    @property
    def started(self) -> bool:
        return "worker started" in self.log

    async def until_started(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.started:  # another process has no event to give
                assert self._process.is_alive(), self.log
                await asyncio.sleep(0.01)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit code, negative for a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)
        await asyncio.to_thread(self._process.join, PATIENCE_S)
        assert self._process.exitcode is not None, self.log
        return self._process.exitcode


@asynccontextmanager
async def forked_worker(name: str, folder: Path, **settings: Any) -> AsyncIterator[Forked]:
    """Run `video-gateway worker` with these settings; gone afterwards. The database knows it by its name."""
    environment = {f"GATEWAY_{key.upper()}": str(value) for key, value in settings.items()}
    environment["PGOPTIONS"] = f"-c fleet.who={name}"
    log_file = folder / f"{name}.log"
    process = _FORKS.Process(target=_work, args=(environment, str(log_file)))
    process.start()
    try:
        yield Forked(process, log_file)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.to_thread(process.join)
