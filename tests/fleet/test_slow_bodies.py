"""Bodies that are slow or never end: they are let go of, cost little memory, and others are served meanwhile."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from fakes.server import serve
from fleet.peers import (
    BODY_TIMEOUT_S,
    MIB,
    PATIENCE_S,
    Brisk,
    brisk,
    connected,
    post,
    talking,
    videos,
)
from harness import ALICE, Running
from processes import Served, served

from app.http.server import HttpProtocol

pytestmark = pytest.mark.anyio

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


@pytest.mark.slow
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


# Too slow


async def test_a_body_that_stops_half_way_is_a_408(gateway: Running) -> None:
    async def stop(url: str, case: DialectCase) -> None:
        body = json.dumps(case.body).encode()
        async with connected(url) as peer:
            await peer.send(post(case.create, len(body)) + body[:-1])
            answer = await peer.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert "no data of the request body arrived" in case.message_of(json.loads(answer.body))
            assert await peer.rest() == b""

    async with serve(brisk(gateway), http=HttpProtocol) as url:
        await asyncio.gather(*(stop(url, case) for case in CASES.values()))
    assert await videos(gateway) == 0


async def test_an_upload_that_stops_half_way_is_a_408(gateway: Running) -> None:
    kind = "multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n\r\n'
    async with talking(brisk(gateway)) as peer:
        await peer.send(post("/v1/videos", 3 * MIB, kind=kind) + part + bytes(2 * MIB))
        answer = await peer.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert await videos(gateway) == 0


@pytest.mark.parametrize("key", [ALICE, "sk-unknown"])
async def test_a_body_that_comes_byte_by_byte_is_let_go_of(gateway: Running, key: str) -> None:
    """It is never silent, but slower than 4 KiB/s."""
    async with talking(brisk(gateway), Brisk) as peer:
        answered = asyncio.create_task(peer.answer())
        await peer.send(post("/v1/videos", 3 * MIB, key))
        await peer.repeats(b" ", answered)
        answer = await answered
        if key == ALICE:
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")
            assert "less than 4 KiB/s" in answer.error["message"]
        else:
            assert answer.status == 401
        rest = asyncio.create_task(peer.rest())
        await peer.repeats(b" ", rest)
        with suppress(ConnectionError):  # closed while the test was still sending
            assert await rest == b""


async def test_an_upload_that_is_slow_but_steady_is_accepted(gateway: Running) -> None:
    body = json.dumps({"prompt": "a paper boat", "image": "data:image/png;base64," + "A" * 2 * MIB}).encode()
    size = len(body) // 12
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    started = asyncio.get_running_loop().time()
    async with talking(brisk(gateway), Brisk) as peer:
        await peer.send(post("/v1/videos", len(body)))
        for piece in pieces:
            assert await peer.receives_nothing(0.1)
            await peer.send(piece)
        answer = await peer.answer()
    assert asyncio.get_running_loop().time() - started > BODY_TIMEOUT_S
    assert answer.status != 408


async def test_a_client_that_waits_is_not_a_client_that_stalls(gateway: Running) -> None:
    video = await gateway.create()
    head = f"HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n\r\n"
    async with serve(brisk(gateway), http=Brisk) as url, connected(url) as one, connected(url) as other:
        await one.send(f"GET /v1/videos/{video['id']}/events {head}".encode())
        await other.send(f"GET /v1/videos/{video['id']}?wait=1 {head}".encode())
        assert (await other.answer()).status == 200
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        async with asyncio.timeout(PATIENCE_S):
            await one.reader.readuntil(b"event: end")
