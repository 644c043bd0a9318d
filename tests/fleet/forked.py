"""Worker processes that start quickly: forked from a process that has imported the gateway, each a real process that
real signals stop."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from processes import PATIENCE_S, until


class Forked:
    """A worker process, by whose name the database knows it."""

    def __init__(self, name: str, log_file: Path, pid: int, code: "asyncio.Future[int]") -> None:
        self.name = name
        self._log_file = log_file
        self._pid = pid
        self._code = code

    @property
    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""

    async def until_started(self) -> None:
        async def look() -> bool | None:
            assert not self._code.done(), self.log
            return True if "worker started" in self.log else None

        await until(look)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._pid, number)

    async def end(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self._code)

    async def kill(self) -> None:
        if not self._code.done():
            self.signal(signal.SIGKILL)
            await self.end()


class ForkServer:
    """Starts workers."""

    def __init__(self, process: Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._pids: dict[str, asyncio.Future[int]] = defaultdict(asyncio.get_running_loop().create_future)
        self._codes: dict[int, asyncio.Future[int]] = defaultdict(asyncio.get_running_loop().create_future)

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            news = json.loads(line)
            if "log" in news:
                self._pids[news["log"]].set_result(news["pid"])
            else:
                self._codes[news["pid"]].set_result(news["code"])

    async def start(self, name: str, **settings: Any) -> Forked:
        """Start `video-gateway worker` with these settings."""
        assert self._process.stdin is not None
        environment = {f"GATEWAY_{key.upper()}": str(value) for key, value in settings.items()}
        log_file = self._folder / f"{name}.log"
        order = {"environment": environment | {"PGOPTIONS": f"-c fleet.who={name}"}, "log": str(log_file)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        pid = await self._pids[str(log_file)]
        return Forked(name, log_file, pid, self._codes[pid])


@asynccontextmanager
async def fork_server(folder: Path) -> AsyncIterator[ForkServer]:
    """A server whose workers must have ended before the block does."""
    command = (sys.executable, str(Path(__file__).with_name("forkserver.py")))
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdin=PIPE, stdout=PIPE)
    server = ForkServer(process, folder)
    reading = asyncio.create_task(server.read())
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading
