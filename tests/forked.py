"""Processes of `video-gateway` that start quickly: forked from one that has loaded it, each a real process in a session
of its own that real signals stop."""

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path


class Forked:
    """A process, with the part of the interface of `asyncio.subprocess.Process` that the tests use."""

    def __init__(self, pid: int, status: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.returncode: int | None = None
        self._ended = asyncio.create_task(self._wait(status))

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    async def _wait(self, status: asyncio.StreamReader) -> int:
        self.returncode = int(await status.readline())
        return self.returncode


async def start(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Forked:
    """Start `video-gateway ARGUMENTS` in a folder, with its output and errors as pipes."""
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    process = await start_into(arguments, environment, folder, out_end, err_end)
    process.stdout, process.stderr = await _reader(out), await _reader(err)
    return process


async def start_into(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, out: int, err: int
) -> Forked:
    """Start `video-gateway ARGUMENTS` in a folder, with its output to these file descriptors, which are closed here."""
    status, status_end = os.pipe()
    order = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder)}
    ends = [out, err, status_end]
    socket.send_fds(_server(), [json.dumps(order).encode()], ends)
    for end in dict.fromkeys(ends):
        os.close(end)
    news = await _reader(status)
    return Forked(int(await news.readline()), news)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb"))
    return reader


@cache
def _server() -> socket.socket:
    """The socket of this process's fork server, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (sys.executable, "-P", str(Path(__file__).with_name("forkserver.py")))
    server = subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True)
    theirs.close()

    @atexit.register
    def end() -> None:
        ours.close()
        server.wait()

    return ours
