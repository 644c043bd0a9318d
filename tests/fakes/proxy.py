"""A forward proxy: passes on requests, opens tunnels, knows names that no resolver knows, notes what it is asked."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class ForwardProxy:
    """A proxy for `http://` by whole requests and for `https://` by tunnels."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    """Addresses, `http://127.0.0.1:1234`, of the hosts that it knows by name."""
    credentials: str | None = None
    """`user:password` without which everything is a 407."""
    refuses: int | None = None
    """A status that it answers to everything."""
    hangs_up: bool = False
    """It closes each connection as soon as it has been asked."""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Method and target of all it was asked, passed on or not."""
    passed: list[str] = field(default_factory=list)
    """The same of what it passed on."""
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def name(self) -> str:
        return urlsplit(self.url).netloc

    def with_password(self, user_and_password: str) -> str:
        return self.url.replace("://", f"://{user_and_password}@")

    async def die(self) -> None:
        """Close all connections at once."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._open.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        self.asked.append(f"{method} {target}")
        status = self._refusal({name.lower(): value.strip() for name, _, value in (h.partition(":") for h in headers)})
        address = self.hosts.get(target if method == "CONNECT" else urlsplit(target).netloc)
        if self.hangs_up:
            return
        if status is None and address is None:
            status = 502
        if status is not None:
            writer.write(f"HTTP/1.1 {status} evil\x7fwords\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        assert address is not None
        self.passed.append(f"{method} {target}")
        inner = urlsplit(address)
        upstream_reader, upstream = await asyncio.open_connection(inner.hostname, inner.port)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.split("/", 3)[3] if target.count("/") > 2 else ""
                own = ("proxy-authorization", "connection")
                kept = [header for header in headers if header.partition(":")[0].lower() not in own]
                head = "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "connection: close", "", ""])
                upstream.write(head.encode("latin-1"))
            await asyncio.gather(_pipe(reader, upstream), _pipe(upstream_reader, writer))
        finally:
            upstream.transport.abort()

    def _refusal(self, headers: Mapping[str, str]) -> int | None:
        if self.refuses is not None:
            return self.refuses
        if self.credentials is None:
            return None
        right = f"Basic {base64.b64encode(self.credentials.encode()).decode()}"
        return None if headers.get("proxy-authorization") == right else 407


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(2**16):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


@asynccontextmanager
async def forward_proxy(
    hosts: Mapping[str, str], *, tls: ssl.SSLContext | None = None, credentials: str | None = None
) -> AsyncIterator[ForwardProxy]:
    """Run a proxy on a free port of this machine."""
    proxy = ForwardProxy(hosts, credentials)
    server = await asyncio.start_server(proxy.talk, "127.0.0.1", 0, ssl=tls)
    proxy.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.die()
        await server.wait_closed()
