"""Base of all fakes: a real server on a loopback port, jobs that move by being polled, and scripted faults.

A fake answers as the real upstream would until a test scripts something else for its next calls:

    fake.script("submit", Answer(500), Reset())
"""

import asyncio
import hashlib
import json
import socket
import ssl
import struct
import subprocess
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import unquote

import imageio_ffmpeg
import uvicorn
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

KEY = "sk-upstream-0123456789"


@lru_cache
def sample_mp4(seconds: float = 0.25) -> bytes:
    """So many seconds of H.264 in a real MP4."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=8"]
        subprocess.run(
            [*command, "-t", str(seconds), "-pix_fmt", "yuv420p", "-movflags", "+faststart", path], check=True
        )
        return path.read_bytes()


@asynccontextmanager
async def serve(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    http: type[asyncio.Protocol] | Literal["auto"] = "auto",
    tls: ssl.SSLContext | None = None,
    patience_s: float = 0,
) -> AsyncIterator[str]:
    """Run uvicorn's protocol, or another, for `app` in this event loop; yields the base URL. Stops at once, whatever
    is open, or after requests had `patience_s` to end."""
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False, http=http)
    config.load()
    state = ServerState()
    make: Callable[..., asyncio.Protocol] = config.http_protocol_class
    protocol = partial(make, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(protocol, host, 0, ssl=tls)
    try:
        yield f"{'http' if tls is None else 'https'}://{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if patience_s and state.tasks:
            await asyncio.wait(list(state.tasks), timeout=patience_s)
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets the transports close
        await server.wait_closed()


@asynccontextmanager
async def serve_bytes(answer: bytes) -> AsyncIterator[str]:
    """A server that reads one request and sends exactly these bytes back."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")]
        missing = int(length[0]) if length else 0
        while missing > 0:
            missing -= len(await reader.read(2**16)) or missing
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def closed_port() -> str:
    """An address at which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@dataclass(frozen=True)
class File:
    """A file part as it arrived."""

    filename: str
    content_type: str
    sha256: str
    size: int

    @classmethod
    def of(cls, filename: str, content_type: str, content: bytes) -> "File":
        return cls(filename, content_type, hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True)
class Call:
    """One request as it arrived."""

    method: str
    path: str
    """As sent, percent-encoding and all."""
    query: str
    headers: dict[str, str]
    json: Any = None
    form: list[tuple[str, str | File]] | None = None
    origin: str = ""
    """Scheme and host at which the client called."""

    @property
    def fields(self) -> dict[str, Any]:
        """The body whatever its coding; the last of repeated parts wins."""
        return dict(self.form) if self.form is not None else (self.json if isinstance(self.json, dict) else {})


@dataclass
class Job:
    """A task of the fake; `raw` holds whatever else the upstream would show of it."""

    ref: str
    asked: dict[str, Any]
    status: str = "queued"
    polls: int = 0
    moving: bool = True
    code: str | int | None = None
    message: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)


class Fault:
    """Something a fake does instead of answering; `accepted`: after having done what it was asked."""

    accepted = False

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


@dataclass
class Answer(Fault):
    """This answer: a `body` that is no text or bytes goes out as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    accepted: bool = False

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = isinstance(self.body, bytes | str)
        content, kind = (self.body, "text/html") if raw else (json.dumps(self.body), "application/json")
        await Response(content, self.status, {"content-type": kind, **self.headers})(scope, receive, send)


@dataclass
class Long(Fault):
    """A JSON answer that is sent in pieces: `before`, `piece` so many `times`, `after`."""

    before: bytes
    piece: bytes
    times: int
    after: bytes
    accepted: bool = False

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.before, "more_body": True})
        for _ in range(self.times):
            await send({"type": "http.response.body", "body": self.piece, "more_body": True})
        await send({"type": "http.response.body", "body": self.after})


@dataclass
class Reset(Fault):
    """The connection dies after the request has been read."""

    accepted: bool = True

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = send.__self__.transport  # type: ignore[attr-defined]  # uvicorn's cycle; ASGI has no word for this
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _disconnected(receive)


@dataclass
class Hang(Fault):
    """No answer until the test sets `release`; `reached` tells that the request is in."""

    accepted: bool = True
    release: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.set()
        await self.release.wait()
        await Response(status_code=504)(scope, receive, send)


@dataclass
class BrokenOff(Fault):
    """More is promised than comes before the connection closes, or before `release` where one is given."""

    content: bytes
    promised: int
    status: int = 200
    release: asyncio.Event | None = None

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"video/mp4"), (b"content-length", str(self.promised).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.content, "more_body": True})
        if self.release is not None:
            await self.release.wait()
        send.__self__.transport.close()  # type: ignore[attr-defined]  # uvicorn's cycle; ASGI has no word for this
        await _disconnected(receive)


@dataclass
class Drip(Fault):
    """A byte now and then, never the last one, until the client has gone."""

    status: int = 200
    accepted: bool = True

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        gone = asyncio.ensure_future(_disconnected(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait({gone}, timeout=0.02)


@dataclass
class DripHead(Fault):
    """A head that never ends: a byte of a header now and then, or one interim answer after the other."""

    interim: bool = False
    accepted: bool = True

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = send.__self__.transport  # type: ignore[attr-defined]  # uvicorn's cycle; ASGI has no word for this
        piece = b"HTTP/1.1 103 Early Hints\r\n\r\n" if self.interim else b"a"
        transport.write(b"" if self.interim else b"HTTP/1.1 200 OK\r\nx-slow: ")
        gone = asyncio.ensure_future(_disconnected(receive))
        while not gone.done():
            transport.write(piece)
            await asyncio.wait({gone}, timeout=0.02)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Fake:
    """A stateful upstream. Subclasses say how its wire looks: `route` names the verb of a call, `answer` plays it."""

    verbs: ClassVar[tuple[str, ...]] = ("submit", "poll", "cancel", "content", "character", "list", "other")
    waiting = "queued"
    working = "in_progress"
    done = "completed"
    failed = "failed"

    def __init__(self, *, key: str = KEY, polls_until_working: int = 1, polls_until_done: int = 2) -> None:
        self.key = key
        self.polls_until_working = polls_until_working
        self.polls_until_done = polls_until_done
        self.jobs: dict[str, Job] = {}
        self.calls: dict[str, list[Call]] = {verb: [] for verb in self.verbs}
        self.file = sample_mp4()
        self._script: defaultdict[str, deque[Fault]] = defaultdict(deque)

    # What a test does

    def script(self, verb: str, *faults: Fault) -> None:
        """Play these for the next calls of `verb`, one each."""
        self._script[verb].extend(faults)

    def finish(self, ref: str) -> None:
        self.show(ref, self.done)

    def fail(self, ref: str, code: str | int | None = None, message: str | None = None) -> None:
        self.show(ref, self.failed)
        self.jobs[ref].code, self.jobs[ref].message = code, message

    def show(self, ref: str, word: str) -> None:
        """Let the job have this status from now on."""
        self.jobs[ref].status, self.jobs[ref].moving = word, False

    def elsewhere(self, ref: str, url: str) -> None:
        """Finish the job with its file at another address."""
        raise NotImplementedError

    @property
    def submits(self) -> list[Call]:
        return self.calls["submit"]

    @property
    def polls(self) -> list[Call]:
        return self.calls["poll"]

    @property
    def deletes(self) -> list[Call]:
        return self.calls["cancel"]

    @property
    def contents(self) -> list[Call]:
        return self.calls["content"]

    # What a subclass says

    def route(self, method: str, path: str) -> tuple[str, str]:
        """Return the verb and what it is about."""
        raise NotImplementedError

    def routed(self, call: Call) -> tuple[str, str]:
        """The same of a whole call, for an upstream whose paths do not say all."""
        return self.route(call.method, call.path)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        raise NotImplementedError

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        """An error in this upstream's words."""
        raise NotImplementedError

    def refusal(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """The same, to be scripted."""
        response = self.refuse(status, message, code)
        return Answer(response.status_code, json.loads(bytes(response.body)), headers or {})

    def allowed(self, call: Call) -> bool:
        return call.headers.get("authorization") == f"Bearer {self.key}"

    # How it runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call = await read_call(Request(scope, receive))
        except ClientDisconnect:  # killed while it was sending
            return
        verb, subject = self.routed(call)
        self.calls[verb].append(call)
        fault = self._script[verb].popleft() if self._script[verb] else None
        if fault is None:
            respond: Callable[[Scope, Receive, Send], Awaitable[None]] = self._answer(verb, subject, call)
        else:
            if fault.accepted:
                self._answer(verb, subject, call)
            respond = fault.play
        await respond(scope, receive, send)

    def _answer(self, verb: str, subject: str, call: Call) -> Response:
        if not self.allowed(call):
            return self.unauthorized()
        return self.answer(verb, subject, call)

    def unauthorized(self) -> Response:
        return self.refuse(401, "Incorrect API key provided", "invalid_api_key")

    def job(self, ref: str, asked: dict[str, Any]) -> Job:
        self.jobs[ref] = Job(ref, asked, self.waiting)
        return self.jobs[ref]

    def polled(self, job: Job) -> Job:
        """Count one poll and move on."""
        job.polls += 1
        if job.moving and job.polls > self.polls_until_done:
            job.status = self.done
        elif job.moving and job.polls > self.polls_until_working:
            job.status = self.working
        return job


@dataclass
class Elsewhere:
    """Another host that has the file and wants no key."""

    file: bytes = field(default_factory=lambda: sample_mp4())
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(await read_call(Request(scope, receive)))
        await Response(self.file, media_type="video/mp4")(scope, receive, send)


async def read_call(request: Request) -> Call:
    kind = request.headers.get("content-type", "")
    document, form = None, None
    if kind.startswith("multipart/form-data"):
        async with request.form() as parts:
            form = [(name, await _part(value)) for name, value in parts.multi_items()]
    elif body := await request.body():
        try:
            document = json.loads(body)
        except ValueError:
            document = body
    path = request.scope["raw_path"].partition(b"?")[0].decode()
    origin = f"{request.url.scheme}://{request.headers.get('host', '')}"
    return Call(request.method, path, request.url.query, dict(request.headers), document, form, origin)


async def _part(value: UploadFile | str) -> str | File:
    if isinstance(value, str):
        return value
    digest, size = hashlib.sha256(), 0
    while chunk := await value.read(2**20):
        digest.update(chunk)
        size += len(chunk)
    return File(value.filename or "", value.content_type or "", digest.hexdigest(), size)


def segments(path: str) -> list[str]:
    """The decoded segments of a path that was split before it was decoded."""
    return [unquote(segment) for segment in path.strip("/").split("/")]


def as_json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(document, status, headers)


class SlowYes:
    """Answers the first submit, or the first request for what `ending` ends the path of, only when released."""

    def __init__(self, fake: Fake, ending: str | None = None) -> None:
        self._fake = fake
        self._ending = ending
        self._first = True
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        meant = scope["method"] == "POST" if self._ending is None else scope["path"].endswith(self._ending)
        held = self._first and meant
        self._first = self._first and not held

        async def send_released(message: Message) -> None:
            if held:
                self.reached.set()
                await self.release.wait()
            await send(message)

        await self._fake(scope, receive, send_released)
