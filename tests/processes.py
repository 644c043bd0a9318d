"""The command line as real processes: started in a directory of their own and read line by line."""

import asyncio
import atexit
import os
import re
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import forked
import httpx
import psutil
from fakes.server import KEY

T = TypeVar("T")

PATIENCE_S = 60
"""Time limit of every wait, long enough for a busy machine."""
CLI = (sys.executable, "-m", "app.cli.main")


@dataclass
class Child:
    """A running command, with all it has printed so far."""

    process: Process | forked.Forked
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    """Called with each line as it comes."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    async def line(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Wait until a line of either output matches; `after` skips that many matches."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                while True:
                    found = [match for line in [*self.out, *self.err] if (match := re.search(pattern, line))]
                    if len(found) > after:
                        return found[after]
                    if all(reader.done() for reader in self._readers):
                        break
                    await self._news.wait()
        except TimeoutError:
            pass
        raise AssertionError(f"no line matches {pattern!r} in\n{self.printed}")

    @property
    def printed(self) -> str:
        return "\n".join([*self.out, *self.err])

    def kill(self, number: signal.Signals = signal.SIGKILL, *, group: bool = False) -> None:
        """Send a signal; to the whole group, as Ctrl-C on a terminal does, when asked to."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    async def end(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._readers)
            return await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.kill(number)
        return await self.end()

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        async for line in stream:
            lines.append(line.decode().rstrip("\n"))
            for listener in self.listeners:
                listener(lines[-1])
            async with self._news:
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    def follow(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(self.process.stdout, self.out)),
            asyncio.create_task(self._read(self.process.stderr, self.err)),
        ]


@asynccontextmanager
async def running(
    *arguments: str,
    cwd: Path,
    command: Sequence[str] = CLI,
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Child]:
    """Start `video-gateway ARGUMENTS` with these settings, `data_dir=...` for GATEWAY_DATA_DIR; gone afterwards."""
    values = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()} | _bytecode()
    process: Process | forked.Forked
    if command == CLI and environment is None:
        process = await forked.start(arguments, {**os.environ, **values}, cwd)
    else:  # the environment may matter to what is loaded
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            cwd=cwd,
            env={**os.environ, **(environment or {}), **values},
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
    child = Child(process)
    child.follow()
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill(group=True)
        await child.end()


@cache
def _bytecode() -> dict[str, str]:
    """A common bytecode cache for the child processes of one run, if none may be written beside the sources: otherwise
    each of them would compile all its imports anew, which takes longer than the test."""
    if not sys.dont_write_bytecode:
        return {}
    directory = tempfile.mkdtemp(prefix="video-gateway-bytecode-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": directory}


async def ran(*arguments: str, cwd: Path, code: int = 0, **settings: Any) -> Child:
    """Run a command to its end; it has to end with this exit code."""
    async with running(*arguments, cwd=cwd, **settings) as child:
        assert await child.end() == code, child.printed
    return child


def provider(url: str, *, called: str = "up", **more: Any) -> dict[str, Any]:
    """Settings of an OpenAI-shaped upstream for a child process."""
    values = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, **more}
    return {f"providers__{called}__{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class Served:
    """A gateway that listens."""

    child: Child
    url: str
    key: str

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    async def create(self, **fields: Any) -> str:
        async with self.client() as client:
            response = await client.post("/v1/videos", json={"prompt": "a paper boat", **fields})
            assert response.status_code == 202, response.text
            return str(response.json()["id"])

    async def finished(self, video_id: str) -> dict[str, Any]:
        """Ask until the video has ended."""
        async with self.client() as client:

            async def look() -> dict[str, Any] | None:
                response = await client.get(f"/v1/videos/{video_id}")
                assert response.status_code == 200, response.text
                video: dict[str, Any] = response.json()
                return video if video["status"] in ("completed", "failed") else None

            return await until(look)

    async def content(self, video_id: str) -> bytes:
        async with self.client() as client:
            response = await client.get(f"/v1/videos/{video_id}/content")
            assert response.status_code == 200, response.text
            return response.content


@asynccontextmanager
async def served(*arguments: str, cwd: Path, **settings: Any) -> AsyncIterator[Served]:
    """Run `serve` on a free port until the block ends."""
    async with running("serve", "--port", "0", *arguments, cwd=cwd, **settings) as child:
        url = await address_of(child)
        secrets = Path(settings.get("data_dir", cwd / "data")) / "secrets"
        key = str(settings["api_keys"]) if "api_keys" in settings else (secrets / "api-key").read_text()
        yield Served(child, url, key)


async def address_of(child: Child) -> str:
    """The address of a server once it is ready, from its log or, with `log_format="console"`, its welcome."""
    found = await child.line(r'"url": "(http://[^"]+)".*"event": "started"|ready at (http://\S+)/v1 ')
    return found[1] or found[2]


async def until(look: Callable[[], Awaitable[T | None]], *, patience_s: float = PATIENCE_S) -> T:
    """Ask again and again, with a pause that only saves work, until there is an answer."""
    async with asyncio.timeout(patience_s):
        while (found := await look()) is None:  # noqa: ASYNC110  # another process has no event to give
            await asyncio.sleep(0.05)
    return found


def postgres_of(data_dir: Path) -> list[int]:
    """The process ids of servers on the database under `data_dir`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and str(data_dir / "postgres") in process.cmdline():
                found.append(process.pid)
    return found
