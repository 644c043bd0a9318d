"""Requests whose end two servers could see at different places: each is refused, and what follows is not run."""

import asyncio
import re
from urllib.parse import urlsplit

import pytest
from fakes.server import serve
from harness import ALICE, BOB, Running
from processes import PATIENCE_S

from app.http.server import HttpProtocol

pytestmark = pytest.mark.anyio

BODY = b'{"prompt": "inner"}'
INNER = (
    b"POST /v1/videos HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (ALICE.encode(), len(BODY), BODY)
)
"""A request of another client that an attacker hides in the body of his own."""
CHUNKED = b"0\r\n\r\n" + INNER

HEADS = {
    "length and chunks": (b"content-length: %d\r\ntransfer-encoding: chunked" % len(CHUNKED), CHUNKED),
    "chunks and length": (b"transfer-encoding: chunked\r\ncontent-length: 5", CHUNKED),
    "two lengths": (b"content-length: 0\r\ncontent-length: %d" % len(INNER), INNER),
    "two equal lengths": (b"content-length: 0\r\ncontent-length: 0", INNER),
    "a list of lengths": (b"content-length: 0, %d" % len(INNER), INNER),
    "a length with a sign": (b"content-length: +0", INNER),
    "a negative length": (b"content-length: -1", INNER),
    "a length in hexadecimal": (b"content-length: 0x0", INNER),
    "a length beyond 64 bits": (b"content-length: 18446744073709551616", INNER),
    "an unknown coding": (b"transfer-encoding: xchunked", CHUNKED),
    "chunked not last": (b"transfer-encoding: chunked, identity", CHUNKED),
    "chunked twice": (b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", CHUNKED),
    "a blank before the colon": (b"transfer-encoding : chunked", CHUNKED),
    "a folded header": (b"transfer-encoding:\r\n chunked", CHUNKED),
    "a control character in a name": (b"transfer\x0bencoding: chunked", CHUNKED),
    "a NUL in a value": (b"x: a\x00b\r\ncontent-length: 0", INNER),
    "a chunk size with a sign": (b"transfer-encoding: chunked", b"+0\r\n\r\n" + INNER),
    "a chunk size in another base": (b"transfer-encoding: chunked", b"0x0\r\n\r\n" + INNER),
    "a chunk longer than it says": (b"transfer-encoding: chunked", b"1\r\naa\r\n0\r\n\r\n" + INNER),
}


@pytest.mark.parametrize("case", HEADS)
async def test_a_request_with_two_ends_is_refused(gateway: Running, case: str) -> None:
    header, body = HEADS[case]
    head = b"POST /v1/videos HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
    answers = await answers_to(gateway, head % BOB.encode() + header + b"\r\n\r\n" + body)
    assert answers[:1] == [400], case
    assert len(answers) == 1, case  # the hidden request is not answered
    listed = (await gateway.client.get("/v1/videos")).json()["data"]
    assert listed == []


async def answers_to(gateway: Running, request: bytes) -> list[int]:
    """The status codes of all answers to these bytes, until the server closes the connection."""
    async with serve(gateway.app, http=HttpProtocol) as url:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                received = await reader.read()
        finally:
            writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
