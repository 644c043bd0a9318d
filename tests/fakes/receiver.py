"""A client's webhook receiver: keeps each request byte for byte, and answers as scripted."""

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fakes.server import Fault


@dataclass(frozen=True)
class Received:
    """One webhook as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Flood(Fault):
    """An answer that goes on for 100 MB, or until the client has gone."""

    status: int = 200
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for _ in range(1_600):
            if send.__self__.disconnected:  # type: ignore[attr-defined]  # uvicorn's cycle; ASGI has no word for this
                self.cut_off.set()
                return
            await send({"type": "http.response.body", "body": b"z" * 65_536, "more_body": True})


@dataclass
class Receiver:
    """Answers 204 unless scripted otherwise: `script` for the next calls, `always` for all after those."""

    always: Fault | None = None
    received: list[Received] = field(default_factory=list)
    _script: deque[Fault] = field(default_factory=deque)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def script(self, *faults: Fault) -> None:
        self._script.extend(faults)

    async def wait_for(self, count: int) -> None:
        """Until that many have arrived."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: len(self.received) >= count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:  # killed while it was sending
            return
        self.received.append(Received(request.url.path, dict(request.headers), body))
        async with self._news:
            self._news.notify_all()
        fault = self._script.popleft() if self._script else self.always
        await (fault.play if fault else Response(status_code=204))(scope, receive, send)
