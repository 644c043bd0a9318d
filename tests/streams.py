"""A client of an event stream, which reads along while the test goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import sqlalchemy as sa
from harness import ALICE

PATIENCE_S = 30
COPIES = sa.text("""
insert into videos select (jsonb_populate_record(
  video, jsonb_build_object('id', 'video_' || lpad(number::text, 26, '0'))
)).* from videos as video, generate_series(1, :copies) as number where video.id = :id
""")
"""Further rows like that of a video, with ids of their own."""


@dataclass(frozen=True)
class Event:
    name: str
    mark: str
    """The id in force, as a client sends it when it connects again."""
    data: Any


@dataclass
class Stream:
    """All that has come so far."""

    response: httpx.Response
    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    mark: str = ""
    ended: bool = False
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[["Stream"], bool]) -> None:
        """Wait until what has come satisfies the condition."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: condition(self))
        except TimeoutError:
            raise AssertionError(f"only {self.named()} came, {self.ended=}") from None

    async def has(self, name: str, video_id: str | None = None, **data: Any) -> Event:
        """Wait for an event about a video that has these values; return the first."""

        def found(stream: Stream) -> list[Event]:
            return [
                event
                for event in stream.events
                if event.name == name
                and (video_id is None or event.data["id"] == video_id)
                and event.data.items() >= data.items()
            ]

        await self.until(lambda stream: bool(found(stream)))
        return found(self)[0]

    async def end(self) -> None:
        """Wait for the server to end the stream."""
        await self.until(lambda stream: stream.ended)

    def named(self, video_id: str | None = None) -> list[str]:
        """The names of all events, or of those about a video."""
        return [event.name for event in self.events if video_id is None or event.data.get("id") == video_id]

    async def read(self) -> None:
        event: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                event[name] = value
            else:
                self.mark = event.get("id", self.mark)
                if "data" in event:
                    self.events.append(Event(event["event"], self.mark, json.loads(event["data"])))
                event = {}
                async with self._news:
                    self._news.notify_all()
        self.ended = True
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def following(
    url: str, path: str = "/v1/events", *, key: str | None = ALICE, **headers: str
) -> AsyncIterator[Stream]:
    """Open a stream, wait until it is connected, and read along until the block ends."""
    given = {**({"authorization": f"Bearer {key}"} if key else {}), **headers}
    async with (
        httpx.AsyncClient(headers=given, timeout=PATIENCE_S, trust_env=False) as client,
        client.stream("GET", f"{url}{path}") as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        reading = asyncio.create_task(stream.read())
        try:
            await stream.until(lambda stream: bool(stream.comments and stream.mark))
            yield stream
        finally:
            reading.cancel()
            await asyncio.wait({reading})
