"""Multipart bodies byte by byte, and a gateway in front of a fake OpenAI-shaped server."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
from fakes.openai import FakeOpenAI
from harness import Running

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
BOUNDARY = "----formdata-undici-012345678901"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
URL_ENCODED = {"content-type": "application/x-www-form-urlencoded"}


def part(name: str, value: str | bytes, **headers: str) -> bytes:
    """One part as undici writes it; a `filename` makes it a file of no declared kind."""
    filename = headers.get("filename")
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"\r\nContent-Type: {headers.get("kind", "application/octet-stream")}'
    content = value.encode() if isinstance(value, str) else value
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes, end: bool = True) -> bytes:
    return b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


async def in_chunks(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    """Without a length, so httpx sends it chunked."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which has to have OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert isinstance(body["error"]["message"], str)
    return dict(body["error"])


class Upstream:
    """A gateway in front of a fake OpenAI-shaped server, called `up`."""

    def __init__(self, gateway: Running, fake: FakeOpenAI) -> None:
        self.gateway = gateway
        self.fake = fake
        self.client = gateway.client

    async def sent(self, response: httpx.Response) -> Any:
        """Let the job run, and return what the upstream was asked."""
        assert response.status_code == 202, response.text
        await self.gateway.worker.run_once()
        call = self.fake.submits[-1]
        return call.json if call.form is None else dict(call.form)

    async def completed(self, **fields: Any) -> dict[str, Any]:
        video = await self.gateway.create(**{"model": "up/sora-2", **fields})
        done = await self.gateway.finish(video["id"])
        assert done["status"] == "completed", done
        return done
