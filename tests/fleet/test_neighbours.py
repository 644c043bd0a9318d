"""One project misbehaves, another does not notice: its jobs come through, and it sees no error."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import KEY, Call, Drip, Hang, Job, sample_mp4, serve
from harness import ALICE, BOB, Running, StartGateway
from processes import PATIENCE_S, until
from starlette.responses import Response, StreamingResponse

from app.db.clock import DatabaseClock
from app.http.server import HttpProtocol

pytestmark = pytest.mark.anyio

MINE, THEIRS = "a paper boat", "a thousand paper boats"
"""The prompts of the project that behaves, and of its neighbour."""
JOBS = 10
"""Jobs of the project that behaves."""
TASKS_AT_ONCE = 8

Task = asyncio.Task[httpx.Response]


class Shared(FakeOpenAI):
    """The upstream of both projects."""

    def __init__(self) -> None:
        super().__init__(polls_until_working=0, polls_until_done=1)
        self.endless = False
        """True: the neighbour's files never end."""

    def content(self, job: Job, call: Call) -> Response:
        if not self.endless or job.asked["prompt"] != THEIRS:
            return super().content(job, call)
        return StreamingResponse(self._for_ever(), media_type="video/mp4")

    async def _for_ever(self) -> AsyncIterator[bytes]:
        yield self.file
        while True:
            await asyncio.sleep(0.2)
            yield b" "


@dataclass
class Street:
    """A gateway that two projects reach over HTTP, and their upstream."""

    gateway: Running
    fake: Shared
    url: str
    hook: Receiver
    hook_url: str
    theirs: list[Task] = field(default_factory=list)
    """Calls of the neighbour that are under way."""

    def client(self, key: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE_S, limits=limits, trust_env=False)

    def prompts(self) -> list[str]:
        """The prompts of all submits, in their order."""
        return [call.fields["prompt"] for call in self.fake.submits]

    async def make(self, neighbour: httpx.AsyncClient, number: int, **fields: str) -> list[str]:
        """Let the neighbour create jobs, a few at a time; each has to be accepted."""
        made: list[str] = []
        turns = asyncio.Semaphore(16)

        async def create() -> None:
            async with turns:
                body = {"prompt": THEIRS, "model": "up/sora-2", **fields}
                response = await neighbour.post("/v1/videos", json=body)
                assert response.status_code == 202, response.text
                made.append(response.json()["id"])

        await asyncio.gather(*(create() for _ in range(number)))
        return made

    def ask(self, call: "asyncio.Future[httpx.Response] | object") -> None:
        self.theirs.append(asyncio.ensure_future(call))  # type: ignore[arg-type]


Misdeed = Callable[[Street, httpx.AsyncClient], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def thousand_jobs(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    await street.make(neighbour, 1_000)
    yield
    assert street.prompts().count(THEIRS) < 900


@asynccontextmanager
async def poisoned_prompts(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    """The upstream breaks down at each of its prompts."""
    street.fake.fails_at = THEIRS
    await street.make(neighbour, 100)
    yield


@asynccontextmanager
async def long_videos(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    """Its files never end, and all downloads that it may have are under way."""
    street.fake.endless = True
    await street.make(neighbour, 40)

    async def some_are_fetched() -> bool | None:
        return True if len(street.fake.calls["content"]) >= 3 else None

    await until(some_are_fetched)
    yield


@asynccontextmanager
async def characters(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    """The upstream takes them and never answers."""
    street.fake.script("character", *[Hang() for _ in range(200)])
    for _ in range(60):
        files = {"video": ("ada.mp4", sample_mp4(), "video/mp4")}
        data = {"name": "Ada", "model": "up/sora-2"}
        street.ask(neighbour.post("/v1/videos/characters", data=data, files=files))

    async def some_are_refused() -> bool | None:
        done = [call.result().status_code for call in street.theirs if call.done()]
        return True if len(done) >= 40 and set(done) == {429} else None

    await until(some_are_refused)
    yield


@asynccontextmanager
async def slow_bodies(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    """Forty bodies of 60 MB of which half a megabyte comes, and no more."""
    address = urlsplit(street.url)
    head = (
        f"POST /v1/videos HTTP/1.1\r\nhost: x\r\nauthorization: {neighbour.headers['authorization']}\r\n"
        "content-type: application/json\r\ncontent-length: 60000000\r\n\r\n"
    ).encode()
    async with AsyncExitStack() as stack:
        for _ in range(40):
            _, writer = await asyncio.open_connection(address.hostname, address.port, family=socket.AF_INET)
            stack.callback(writer.close)
            writer.write(head + b'{"prompt": "' + b"a" * 2**19)
            await writer.drain()
        yield


@asynccontextmanager
async def webhook_tests(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    """Test events, and events, to a receiver that never answers."""
    slow = Receiver(always=Drip())
    async with serve(slow) as url:
        body = {"name": "slow", "url": url, "event_types": ["video.completed"]}
        endpoint = (await neighbour.post("/v1/webhook_endpoints", json=body)).json()["id"]
        for _ in range(100):
            path = f"/v1/webhook_endpoints/{endpoint}/test"
            street.ask(neighbour.post(path, json={"event_type": "video.completed"}))
        await street.make(neighbour, 20)
        yield


@asynccontextmanager
async def streams(street: Street, neighbour: httpx.AsyncClient) -> AsyncIterator[None]:
    """As many event streams as it may have and more, all of a video that does not end."""
    street.fake.polls_until_done = 10_000
    [video] = await street.make(neighbour, 1)
    street.fake.polls_until_done = 1
    for _ in range(120):
        street.ask(neighbour.get(f"/v1/videos/{video}/events"))

    async def others_are_refused() -> bool | None:
        done = [call.result().status_code for call in street.theirs if call.done()]
        return True if done == [429] * 20 else None

    await until(others_are_refused)
    yield


MISDEEDS: list[Misdeed] = [
    thousand_jobs,
    poisoned_prompts,
    long_videos,
    characters,
    slow_bodies,
    webhook_tests,
    streams,
]


@pytest.fixture
async def street(start_gateway: StartGateway) -> AsyncIterator[Street]:
    fake, hook = Shared(), Receiver()
    async with AsyncExitStack() as stack:
        upstream_url = await stack.enter_async_context(serve(fake))
        hook_url = await stack.enter_async_context(serve(hook))
        upstream = {"kind": "openai", "base_url": f"{upstream_url}/v1", "api_key": KEY, "concurrency": TASKS_AT_ONCE}
        gateway = await stack.enter_async_context(
            start_gateway(
                its_clock=DatabaseClock(),
                providers={"up": upstream},
                run_worker=True,
                worker_tick_s=0.1,
                poll_interval_s=0.1,
                worker_stores=4,
                max_waiting=100,
                webhook_timeout_s=5,
                shutdown_grace_s=0,
            )
        )
        url = await stack.enter_async_context(serve(gateway.app, http=HttpProtocol))
        street = Street(gateway, fake, url, hook, hook_url)
        yield street
        for call in street.theirs:
            call.cancel()
        await asyncio.gather(*street.theirs, return_exceptions=True)


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda misdeed: misdeed.__name__)
async def test_a_misbehaving_project_is_not_noticed_by_another(street: Street, misdeed: Misdeed) -> None:
    async with street.client(ALICE) as neighbour, street.client(BOB) as bob, misdeed(street, neighbour):
        made = []
        for _ in range(JOBS):
            body = {"prompt": MINE, "model": "up/sora-2", "webhook_url": f"{street.hook_url}/bob"}
            response = await bob.post("/v1/videos", json=body)
            assert response.status_code == 202, response.text
            made.append(response.json()["id"])
        for video in made:
            await until(partial(ended, bob, video))
            assert (await bob.get(f"/v1/videos/{video}/content")).status_code == 200
            [attempt] = await street.gateway.attempts(video)
            assert (attempt.submits, attempt.error_message) == (1, None)  # not refused, nor paused, before
        stream = await bob.get(f"/v1/videos/{made[0]}/events")
        assert stream.status_code == 200
        assert "event: end" in stream.text

        async def all_heard() -> bool | None:
            return True if len(street.hook.received) == JOBS else None

        await until(all_heard)
        assert street.prompts().count(MINE) == JOBS


async def ended(client: httpx.AsyncClient, video: str) -> bool | None:
    """True once a video is completed; it must not fail."""
    response = await client.get(f"/v1/videos/{video}?wait=5")
    assert response.status_code == 200, response.text
    shown = response.json()
    assert shown["status"] != "failed", shown
    return True if shown["status"] == "completed" else None
