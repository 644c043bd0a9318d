"""Connections to a gateway, byte by byte, and a gateway that is in a hurry."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from fakes.server import serve
from harness import ALICE, Running
from starlette.types import ASGIApp

from app.http.middleware import RequestMiddleware
from app.http.server import HttpProtocol

PATIENCE_S = 30
"""Time limit of every wait, long enough for a busy machine."""
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
MIB = 2**20


class Brisk(HttpProtocol):
    """Thirty seconds in a fraction of one."""

    head_timeout_s = 0.2
    stall_timeout_s = 0.2


BODY_TIMEOUT_S = 1.0


def brisk(gateway: Running) -> ASGIApp:
    """The gateway with an edge that is in a hurry."""
    layer: Any = gateway.app.middleware_stack
    while not isinstance(layer, RequestMiddleware):
        layer = layer.app
    layer.body_timeout_s = BODY_TIMEOUT_S
    return gateway.app


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        """The error, whose whole shape is OpenAI's."""
        body = json.loads(self.body)
        assert list(body) == ["error"]
        assert list(body["error"]) == ["message", "type", "param", "code"]
        return body["error"]


@dataclass
class Peer:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with suppress(ConnectionError):  # what the server had to say is still to be read
            await self.writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().splitlines()[:-1]
            pairs = [line.split(": ", 1) for line in lines]
            assert len(dict(pairs)) == len(pairs), "a header stands there twice"
            headers = dict(pairs)
            length = int(headers.get("content-length", 0))
            return Answer(int(status.split()[1]), headers, await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        """All that still comes; the server has to close."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def receives_nothing(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                return not await self.reader.read(1)
        except TimeoutError:
            return True

    async def repeats(self, data: bytes, answered: "asyncio.Task[Any]") -> None:
        """Send the same until there is an answer, as fast as it is taken."""
        async with asyncio.timeout(PATIENCE_S):
            while not answered.done():
                await self.send(data)
                await asyncio.wait({answered}, timeout=0.001)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Peer]:
    peer = Peer(*await asyncio.open_connection("127.0.0.1", urlsplit(url).port))
    try:
        yield peer
    finally:
        peer.writer.close()
        with suppress(ConnectionError):
            await peer.writer.wait_closed()


@asynccontextmanager
async def talking(app: ASGIApp, http: type[HttpProtocol] = HttpProtocol) -> AsyncIterator[Peer]:
    async with serve(app, http=http) as url, connected(url) as peer:
        yield peer


def post(path: str, length: int, key: str = ALICE, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n"
    return f"{head}content-length: {length}\r\n\r\n".encode()


async def videos(gateway: Running) -> int:
    async with gateway.gateway.db.reading() as connection:
        count: int = (await connection.execute(sa.text("select count(*) from videos"))).scalar_one()
    return count
