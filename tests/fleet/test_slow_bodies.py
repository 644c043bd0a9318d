"""Bodies that never end, sent to a real server process: they cost it little memory, and others are served meanwhile."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from processes import Served, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MIB = 2**20
LENGTH = 63 * MIB
UNSENT = 2 * MIB
"""Left out at the end of each body, so that none is ever complete."""
LIMIT_MB = 256
TIME_S = 60
KEYS = [f"sk-key-{number}" for number in range(12)]

MULTIPART = "multipart/form-data; boundary=x"
KINDS = {
    "json": ("application/json", b'{"prompt": "', b"a"),
    "file part": (MULTIPART, b'--x\r\nContent-Disposition: form-data; name="v"; filename="v"\r\n\r\n', b"\0"),
    "text part": (MULTIPART, b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n', b"a"),
    "form": ("application/x-www-form-urlencoded", b"prompt=", b"a"),
}


@dataclass
class Unfinished:
    """A connection that sends a body without its end, and then keeps it open."""

    url: str
    key: str
    kind: str
    status: int | None = None
    headers: bytes = b""

    async def send(self) -> None:
        """Send as fast as it is taken, until all is sent but the end, or an answer comes."""
        media_type, start, filler = KINDS[self.kind]
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.url).port)
        head = f"POST /v1/videos HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
        head += f"content-type: {media_type}\r\ncontent-length: {LENGTH}\r\n\r\n"
        sending = asyncio.create_task(self._send(head.encode() + start, filler * MIB))
        answering = asyncio.create_task(self._reader.readuntil(b"\r\n\r\n"))
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        self._rest = (sending, answering)

    async def _send(self, start: bytes, piece: bytes) -> None:
        with suppress(ConnectionError):
            self._writer.write(start)
            for _ in range((LENGTH - UNSENT) // MIB):
                self._writer.write(piece)
                await self._writer.drain()

    async def close(self) -> None:
        sending, answering = self._rest
        if answering.done():
            self.headers = answering.result().lower()
            self.status = int(self.headers.split()[1])
        for task in self._rest:
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def flood(server: Served, *groups: list[Unfinished]) -> tuple[int, list[int]]:
    """Let one group after the other send; returns the growth of the process in bytes, and the statuses of other
    requests."""

    async def send() -> None:
        for group in groups:
            await asyncio.gather(*(peer.send() for peer in group))

    process = psutil.Process(server.child.process.pid)
    before = peak = process.memory_info().rss
    sending = asyncio.create_task(send())
    others: list[int] = []
    async with server.client() as client, asyncio.timeout(TIME_S):
        client.headers["authorization"] = f"Bearer {KEYS[-1]}"
        while not sending.done():
            others.append((await client.get("/v1/videos")).status_code)
            others.append((await client.post("/v1/videos", json={"prompt": "a paper boat"})).status_code)
            peak = max(peak, process.memory_info().rss)
        others.append((await client.post("/v1/videos", json={"prompt": "a paper boat"})).status_code)
    await sending
    peak = max(peak, process.memory_info().rss)
    await asyncio.gather(*(peer.close() for group in groups for peer in group))
    return peak - before, others


async def test_unfinished_bodies_cost_little_memory_and_others_are_served(tmp_path: Path, database_url: str) -> None:
    kinds = list(KINDS)
    limits = {"max_bodies_mb": LIMIT_MB, "run_worker": "false"}
    async with served(cwd=tmp_path, database_url=database_url, api_keys=",".join(KEYS), **limits) as server:
        one_key = [Unfinished(server.url, KEYS[0], kinds[n % len(kinds)]) for n in range(10)]
        many_keys = [Unfinished(server.url, KEYS[1 + n // 2], kinds[n % len(kinds)]) for n in range(20)]
        grown, others = await flood(server, one_key, many_keys)
        assert grown < 300 * MIB, f"{grown / MIB:.0f} MiB"
        assert len(others) > 2
        assert set(others) == {200, 202}
        assert {peer.status for peer in one_key} == {None, 429}
        assert {peer.status for peer in many_keys} == {None, 503}
        refused = [peer for peer in [*one_key, *many_keys] if peer.status is not None]
        assert all(b"\r\nretry-after: 1\r\n" in peer.headers for peer in refused)
        held = len(one_key) + len(many_keys) - len(refused)
        assert held <= LIMIT_MB * MIB // (LENGTH - UNSENT), "no more than the limit is held"
    assert "Traceback" not in server.child.printed
