"""The load generator: a separate process that sends its next request after each answer, on kept-alive connections.

Reads a `Load` from standard input and writes a `Result` to standard output, both JSON. A raw protocol rather than an
HTTP client, so that the generator is never the bottleneck.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop


@dataclass(frozen=True)
class Load:
    """Requests to send: the paths in turn, over `connections` at once."""

    port: int
    paths: list[str]
    body: str = ""
    """JSON to POST; empty: a GET."""
    key: str = ""
    connections: int = 16
    warmup_s: float = 0.5
    duration_s: float = 5.0

    def requests(self) -> list[bytes]:
        head = f"host: 127.0.0.1:{self.port}\r\nauthorization: Bearer {self.key}\r\naccept: */*\r\n"
        if self.body:
            head += f"content-type: application/json\r\ncontent-length: {len(self.body.encode())}\r\n"
        method = "POST" if self.body else "GET"
        return [f"{method} {path} HTTP/1.1\r\n{head}\r\n{self.body}".encode() for path in self.paths]


@dataclass
class Result:
    """Answers of the `seconds` after the warm-up."""

    seconds: float = 0.0
    bytes: int = 0
    """Of response bodies, unfinished ones included."""
    latencies_ms: list[float] = field(default_factory=list)
    """One for each finished answer."""
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds

    @property
    def mb_per_s(self) -> float:
        return self.bytes / self.seconds / 1e6


class _Clients:
    """State that all connections share."""

    def __init__(self, load: Load) -> None:
        self.requests = load.requests()
        self.sent = 0
        self.statuses: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.bytes = 0
        self.counting = False
        self.running = True

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]


class _Client(asyncio.Protocol):
    """One connection: the next request goes out when the last answer is in."""

    transport: asyncio.Transport

    def __init__(self, clients: _Clients) -> None:
        self._clients = clients
        self._head = b""
        self._missing = 0
        self._started = 0.0
        self._status = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one only by its methods
        self._send_next()

    def _send_next(self) -> None:
        self._started = time.perf_counter()
        self.transport.write(self._clients.next())

    def data_received(self, data: bytes) -> None:
        if self._missing == 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self._head = self._head[:end].lower(), self._head[end + 4 :], b""
            self._status = head[9:12].decode()
            self._missing = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        self._missing -= len(data)
        clients = self._clients
        if clients.counting:
            clients.bytes += len(data)
        if self._missing == 0:
            if clients.counting:
                clients.statuses[self._status] += 1
                clients.latencies_ms.append((time.perf_counter() - self._started) * 1000)
            if clients.running:
                self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._clients.running:
            self._clients.statuses["broken"] += 1


async def run(load: Load) -> Result:
    clients = _Clients(load)
    loop = asyncio.get_running_loop()
    open_ = [
        await loop.create_connection(lambda: _Client(clients), "127.0.0.1", load.port) for _ in range(load.connections)
    ]
    await asyncio.sleep(load.warmup_s)
    clients.counting, started = True, time.perf_counter()
    await asyncio.sleep(load.duration_s)
    clients.counting = clients.running = False
    seconds = time.perf_counter() - started
    for transport, _ in open_:
        transport.abort()
    return Result(seconds, clients.bytes, clients.latencies_ms, dict(clients.statuses))


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(run(Load(**json.load(sys.stdin)))))))
