"""The transport of calls: what is on the wire when a hook runs, calls that are cut off or cancelled, URLs as given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from certificates import trusted_tls
from fakes.wire import OK, Talk, Wire, answering, deaf, dripping, informing, silent, wire

from app import net
from app.net.transport import TAIL_BYTES, Once, hold_until

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * 4 * 2**10


@asynccontextmanager
async def client(timeout_s: float = 20, connections: int = 2) -> AsyncIterator[httpx.AsyncClient]:
    async with net.upstream(timeout_s=timeout_s, connections=connections) as found:
        yield found


# Hooks


def posted(http: httpx.AsyncClient, url: str, body: bytes, hook: Once, *, whole_body: bool) -> httpx.Request:
    request = http.build_request("POST", url, content=body)
    hold_until(hook, request, whole_body=whole_body)
    return request


@pytest.mark.parametrize("reused", [False, True], ids=["new connection", "reused connection"])
@pytest.mark.parametrize("body", [b"x" * 600, LONG], ids=["short", "long"])
async def test_nothing_is_on_the_wire_before_the_hook_has_returned(reused: bool, body: bytes) -> None:
    seen: list[int] = []
    async with wire(answering) as found, client() as http:
        if reused:
            await http.get(found.url)
        before = len(found.received)

        async def hook() -> None:
            seen.append(len(found.received) - before)

        request = posted(http, found.url, body, Once(hook), whole_body=False)
        assert (await http.send(request)).status_code == 200
        assert seen == [0]
        assert found.received.endswith(body)
    assert found.connections == 1


async def test_a_long_body_is_held_back_up_to_its_last_piece() -> None:
    seen: list[tuple[int, int]] = []
    async with wire(answering) as found, client() as http:

        async def hook() -> None:
            async with asyncio.timeout(20):
                while len(found.received) < len(LONG) - TAIL_BYTES:  # noqa: ASYNC110  # the server reads at its pace
                    await asyncio.sleep(0.001)
            seen.append((len(found.requests), len(LONG) - len(found.received.partition(b"\r\n\r\n")[2])))

        request = posted(http, found.url, LONG, Once(hook), whole_body=True)
        assert (await http.send(request)).status_code == 200
        assert seen == [(0, TAIL_BYTES)]
        assert found.received.endswith(LONG)


@pytest.mark.parametrize("length", [TAIL_BYTES + 1, 20_000, 70_000, 300_000, 2**20])
async def test_long_bodies_leave_over_tls_on_a_kept_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    async def hook() -> None:
        pass

    with trusted_tls(tmp_path, monkeypatch) as tls:
        async with wire(answering, tls=tls) as found, client(timeout_s=5) as http:
            for _ in range(3):
                request = posted(http, found.url, b"x" * length, Once(hook), whole_body=True)
                assert (await http.send(request)).status_code == 200
    assert (len(found.requests), found.connections) == (3, 1)


@pytest.mark.parametrize("whole_body", [False, True], ids=["before the head", "before the last piece"])
@pytest.mark.parametrize(
    "error", [OSError("o"), TimeoutError(), ValueError("v"), httpx.ConnectError("c"), KeyError("k")]
)
async def test_a_hook_that_raises_stops_the_request(whole_body: bool, error: Exception) -> None:
    async def hook() -> None:
        raise error

    async with wire(answering) as found, client() as http:
        for _ in range(5):
            with pytest.raises(type(error)) as raised:
                await http.send(posted(http, found.url, LONG, Once(hook), whole_body=whole_body))
            assert raised.value is error
        assert found.requests == []
        assert whole_body or found.received == b""
        assert (await http.get(found.url)).status_code == 200
        await http.aclose()
        await found.closed()


async def test_an_error_of_the_body_is_raised_unchanged() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("the store is gone")

    async with wire(answering) as found, client() as http:
        with pytest.raises(LookupError, match="the store is gone"):
            await http.post(found.url, content=broken(), headers={"content-length": "10"})
        assert found.requests == []


# Ends


@pytest.mark.parametrize("talk", [silent, dripping, informing, deaf], ids=lambda talk: str(talk.__name__))
async def test_a_pool_is_whole_after_many_cancelled_calls(talk: Talk) -> None:
    async with wire(talk) as found, wire(answering) as good, client() as http:

        async def given_up() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await http.post(found.url, content=LONG)

        for _ in range(25):
            await asyncio.gather(*(given_up() for _ in range(4)))
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(http.get(good.url) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        if talk is not deaf:  # which does not notice
            await found.closed()


async def test_an_upload_that_is_not_read_ends() -> None:
    async with wire(deaf) as found, client(timeout_s=0.2) as http:
        with pytest.raises(httpx.TimeoutException):
            await http.post(found.url, content=LONG * 16)


async def hangs_up(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)


async def half_a_head(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-")
    await writer.drain()


async def garbage(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    writer.write(b"\0\1\2 this is no HTTP\r\n\r\n")
    await writer.drain()


async def second_time_hangs_up(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    writer.write(OK)
    await found.request(reader)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("talk", [hangs_up, half_a_head, garbage, second_time_hangs_up], ids=lambda t: str(t.__name__))
async def test_a_request_that_was_sent_never_looks_unsent_and_is_not_repeated(method: str, talk: Talk) -> None:
    async with wire(talk) as found, client() as http:
        if talk is second_time_hangs_up:
            await http.get(found.url)
        before = len(found.requests)
        with pytest.raises(httpx.RequestError) as raised:
            await http.request(method, found.url)
        assert not isinstance(raised.value, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        assert len(found.requests) == before + 1


async def cut_off(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await found.request(reader)
    length = b"content-length: 9\r\n" if b"/long" in found.requests[-1] else b""
    writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\nok")
    await writer.drain()


async def test_a_body_that_is_cut_off_is_an_error_if_its_length_was_said() -> None:
    async with wire(cut_off) as found, client() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(f"{found.url}/long")
        assert (await http.get(found.url)).content == b"ok"


# URLs and headers


@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb%2fc?sig=a%2Bb+c%20d&x=%7E~%27'",
        "/a+b/%2B/%20?X-Amz-Signature=ab%2Fcd%3D%3d&X-Amz-Credential=A%2F2026",
        "/%41%7e%2e%2E/x?q=%41%61",
        "/a??b=c?d",
        "/?a=b%00c%0A",
        "/%E4%F6?x=%ff",
        "/a//b/%2e%2e/c?x=//",
        "/x?a=1&a=1&b=&c",
        "/x?u=http%3A%2F%2Fy%2F%3Fa%3Db%2526",
        "/%zz%?100%&%2",
    ],
)
async def test_an_url_is_sent_byte_for_byte(path: str) -> None:
    async with wire(answering) as found, client() as http:
        url = httpx.URL(found.url + path)
        await http.get(url)
        assert found.requests[0].split(b" ")[1] == url.raw_path


async def test_no_header_is_added_and_no_cookie_kept() -> None:
    async def setting_a_cookie(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await found.request(reader)
            writer.write(OK.replace(b"content-length", b"set-cookie: s=1\r\ncontent-length"))

    async with wire(setting_a_cookie) as found, client() as http:
        for _ in range(2):
            await http.post(found.url, content=b"{}", headers={"x-a": "1"})
        names = {line.split(b":")[0].lower() for line in found.requests[1].split(b"\r\n")[1:] if line}
        assert names == {
            b"host",
            b"accept",
            b"user-agent",
            b"accept-encoding",
            b"connection",
            b"x-a",
            b"content-length",
        }
