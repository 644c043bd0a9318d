"""Servers below HTTP: each connection is a talk over the bare stream, and all that arrives is recorded."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Wire:
    """A server that records all that arrives."""

    url: str = ""
    received: bytearray = field(default_factory=bytearray)
    requests: list[bytes] = field(default_factory=list)
    """Heads of the requests that arrived whole."""
    connections: int = 0
    open: set[asyncio.Task[None]] = field(default_factory=set)

    async def request(self, reader: asyncio.StreamReader) -> None:
        """Read one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += head
        left = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        while left:
            piece = await reader.read(min(left, 2**16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            self.received += piece
            left -= len(piece)
        self.requests.append(head)

    async def closed(self) -> None:
        """Wait until every connection has been closed by the client."""
        async with asyncio.timeout(20):
            await asyncio.gather(*self.open)


Talk = Callable[[Wire, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def wire(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    found = Wire()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        found.open.add(task)
        found.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await talk(found, reader, writer)
        writer.transport.abort()
        found.open.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in found.open:
            task.cancel()
        await server.wait_closed()


async def answering(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await found.request(reader)
        writer.write(OK)


async def silent(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    await reader.read()


async def dripping(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nx: ")
    await _repeat(b"a", reader, writer)


async def informing(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    await _repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", reader, writer)


async def _repeat(piece: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write a piece again and again until the client has gone."""
    gone = asyncio.ensure_future(reader.read())
    while not gone.done():
        writer.write(piece)
        await asyncio.wait({gone}, timeout=0.01)
    gone.exception()


async def deaf(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    await asyncio.Event().wait()
