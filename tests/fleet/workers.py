"""Worker processes that are started and ended in large numbers."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import forked
from processes import PATIENCE_S, until


class WorkerProcess:
    """A worker process, by whose name the database knows it."""

    def __init__(self, name: str, log_file: Path, process: forked.Forked) -> None:
        self.name = name
        self._log_file = log_file
        self._process = process

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    async def until_started(self) -> None:
        async def look() -> bool | None:
            assert self._process.returncode is None, self.log
            return True if "worker started" in self.log else None

        await until(look)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.end()


async def start_worker(folder: Path, name: str, **settings: Any) -> WorkerProcess:
    """Start `video-gateway worker` with these settings, in a folder that gets its log."""
    values = {f"GATEWAY_{key.upper()}": str(value) for key, value in settings.items()}
    log_file = folder / f"{name}.log"
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    environment = {**os.environ, **values, "PGOPTIONS": f"-c fleet.who={name}"}
    return WorkerProcess(name, log_file, await forked.start_into(("worker",), environment, folder, log, log))
