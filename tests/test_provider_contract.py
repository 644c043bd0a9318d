"""Every provider through the same tests, over real HTTP, against the fake of its upstream.

A new provider is one more `Upstream` in the table: its fake, its words, and its requests as they must look on the wire.
What is at stake is money: a submit that may have been taken must never look like one that was not.
"""

import base64
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qsl

import pytest
from fakes.apilaplas import FakeApilaplas
from fakes.gptge import FakeGptGe
from fakes.lumen import FakeLumen
from fakes.lumenfall import FakeLumenfall
from fakes.lunos import FakeLunos
from fakes.openai import FakeOpenAI
from fakes.server import (
    KEY,
    Answer,
    BrokenOff,
    Drip,
    Elsewhere,
    Fake,
    File,
    Hang,
    Reset,
    closed_port,
    segments,
    serve,
    serve_bytes,
)
from fakes.sglang import FakeSGLang
from fakes.vllm_omni import FakeVllmOmni
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app import errors
from app.media.uploads import Upload
from app.providers.apilaplas import Apilaplas
from app.providers.base import Provider, Task
from app.providers.gptge import GptGe
from app.providers.lumen import Lumen
from app.providers.lumenfall import Lumenfall
from app.providers.lunos import Lunos
from app.providers.openai import OpenAI
from app.providers.rest import MAX_ANSWER_BYTES
from app.video import Media, Operation, Output, Progress, Status, VideoRequest

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LOOPBACK = ip_network("127.0.0.0/8")
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"

CAT = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
FILM = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 80
UPLOADS = {"cat": ('c"at\r\n.png', "image/png", CAT), "film": ("film.mp4", "video/mp4", FILM)}
CAT_PART = File.of("c%22at%0D%0A.png", "image/png", CAT)
FILM_PART = File.of("film.mp4", "video/mp4", FILM)


def ask(prompt: str = "a paper boat", **fields: Any) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": prompt, "model": "an-alias", **fields})


@dataclass(frozen=True)
class Wire:
    """A request, and the whole of what must arrive upstream for it."""

    request: VideoRequest
    json: Any = None
    form: list[tuple[str, Any]] | None = None
    path: str = "/v1/videos"
    headers: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Upstream:
    name: str
    kind: type[Provider]
    fake: Callable[[], Fake]
    wires: dict[str, Wire]
    words: dict[str, Status]
    accepted: Callable[[Any], Any]
    """The body of an accepted submit, with this id."""
    config: dict[str, Any] = field(default_factory=dict)
    prefix: str = "/v1"
    model: str = "wan-2.2"
    moderation: tuple[int, str, str] = (400, "Your request was blocked by our moderation system.", "moderation_blocked")
    credit: tuple[int, str, str] = (402, "You exceeded your current quota.", "insufficient_quota")
    cancels: bool = True
    """Whether there is a call for it."""
    stops: bool = True
    """Whether that call certainly stops the work."""
    streams: bool = True
    """Whether uploads go out as they are read."""
    stopped_by: tuple[int, ...] = ()
    """Statuses by which an answer without a body to that call says the same."""
    resubmits: bool = False
    """Whether the same submit twice makes one task without being told so by the settings."""
    idempotent: tuple[dict[str, Any], ...] = ()
    """Settings under which the same submit twice makes one task."""


OPENAI_WORDS = {
    "queued": Status.queued,
    "pending": Status.queued,
    "in_progress": Status.in_progress,
    "in-progress": Status.in_progress,
    "processing": Status.in_progress,
    "RUNNING": Status.in_progress,
    "completed": Status.completed,
    "succeeded": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
    "canceled": Status.failed,
    "expired": Status.failed,
    "deleted": Status.failed,
}

TEXT = ask(seconds=8, size="1280x720", aspect_ratio="16:9", resolution="720p")
EXTRA: dict[str, Any] = {
    "camera": {"pan": 1.5, "shake": False},
    "tags": ["a", "b"],
    "steps": 30,
    "cfg": None,
    "hd": True,
    "prompt": "mine",
    "n": 4,
    "seconds": 60,
    'x"\r\n': "y",
}
FULL = ask(
    seconds=4.5,
    aspect_ratio="16:9",
    resolution="720p",
    negative_prompt="blur",
    seed=0,
    generate_audio=False,
    loop=True,
    expand_prompt=True,
    n=2,
    metadata={"a": "b"},
    user="u1",
    retention_s=60,
    extra=EXTRA,
)
PICTURE = ask(first_frame=Media(url="https://x.example/a.png"))
PICTURES = ask(
    first_frame=Media(url="https://x.example/a.png"), reference_images=(Media(url="https://x.example/b.png"),)
)
UPLOADED = ask(seconds=8, first_frame=Media(key="cat"))
MIXED = ask(
    first_frame=Media(key="cat"),
    last_frame=Media(url="https://x.example/z.png"),
    reference_images=(Media(url="https://x.example/b.png"),),
    reference_video=Media(key="film"),
    extra=EXTRA,
)
EDIT_FILE = ask(operation=Operation.edit, source=Media(key="film"))

BASIC = {"prompt": "a paper boat", "model": "wan-2.2"}
FORM = list(BASIC.items())
MADE = {"source_ref": "video_9/?"}

OPENAI_WIRES = {
    "text": Wire(TEXT, {**BASIC, "seconds": "8", "size": "1280x720"}),
    "prompt only": Wire(ask("żółw 🐢"), {**BASIC, "prompt": "żółw 🐢"}),
    "everything": Wire(
        FULL,
        {
            **BASIC,
            "seconds": "4.5",
            "aspect_ratio": "16:9",
            "resolution": "720p",
            "negative_prompt": "blur",
            "seed": 0,
            "generate_audio": False,
            "loop": True,
            "expand_prompt": True,
            "user": "u1",
            **{name: value for name, value in EXTRA.items() if name not in ("prompt", "n", "seconds")},
        },
    ),
    "picture": Wire(PICTURE, {**BASIC, "input_reference": {"image_url": "https://x.example/a.png"}}),
    "pictures": Wire(
        PICTURES,
        {**BASIC, "input_reference": [{"image_url": f"https://x.example/{name}.png"} for name in "ab"]},
    ),
    "upload": Wire(UPLOADED, form=[*FORM, ("seconds", "8"), ("input_reference", CAT_PART)]),
    "uploads beside addresses": Wire(
        MIXED,
        form=[
            *FORM,
            ("last_frame[image_url]", "https://x.example/z.png"),
            ("input_reference[][image_url]", "https://x.example/b.png"),
            ("camera[pan]", "1.5"),
            ("camera[shake]", "false"),
            ("tags[]", "a"),
            ("tags[]", "b"),
            ("steps", "30"),
            ("hd", "true"),
            ("seconds", "60"),
            ("x%22%0D%0A", "y"),
            ("input_reference[]", CAT_PART),
            ("reference_video", FILM_PART),
        ],
    ),
    "characters": Wire(
        ask(characters=("c1", "c2")),
        {**BASIC, "characters": [{"id": "char_1"}, {"id": "char_2"}]},
        task={"character_refs": ("char_1", "char_2")},
    ),
    "remix": Wire(
        ask(operation=Operation.remix), {"prompt": "a paper boat"}, path="/v1/videos/video_9%2F%3F/remix", task=MADE
    ),
    "edit": Wire(
        ask(operation=Operation.edit),
        {"prompt": "a paper boat", "video": {"id": "video_9/?"}},
        path="/v1/videos/edits",
        task=MADE,
    ),
    "edit of an upload": Wire(EDIT_FILE, form=[*FORM, ("video", FILM_PART)], path="/v1/videos/edits"),
    "extend": Wire(
        ask(operation=Operation.extend, seconds=12),
        {"prompt": "a paper boat", "video": {"id": "video_9/?"}, "seconds": "12"},
        path="/v1/videos/extensions",
        task=MADE,
    ),
    "key in the header": Wire(ask(), BASIC, headers={"idempotency-key": "attempt_1"}, config={"idempotency": "header"}),
    "key in the body": Wire(ask(), {**BASIC, "idempotency_key": "attempt_1"}, config={"idempotency": "body"}),
}

VLLM_WIRES = {
    "text": Wire(TEXT, form=[*FORM, ("seconds", "8"), ("size", "1280x720")]),
    "everything": Wire(
        FULL.model_copy(update={"seconds": 4}),
        form=[
            *FORM,
            ("seconds", "4"),
            ("aspect_ratio", "16:9"),
            ("short_edge", "720"),
            ("negative_prompt", "blur"),
            ("seed", "0"),
            ("generate_sound", "false"),
            ("loop", "true"),
            ("expand_prompt", "true"),
            ("user", "u1"),
            ("camera", '{"pan": 1.5, "shake": false}'),
            ("tags", '["a", "b"]'),
            ("steps", "30"),
            ("hd", "true"),
            ("x%22%0D%0A", "y"),
        ],
    ),
    "picture": Wire(PICTURE, form=[*FORM, ("image_reference", '{"image_url": "https://x.example/a.png"}')]),
    "upload": Wire(UPLOADED, form=[*FORM, ("seconds", "8"), ("input_reference", CAT_PART)]),
    "uploads": Wire(
        ask(first_frame=Media(key="cat"), reference_video=Media(key="film")),
        form=[*FORM, ("input_references", CAT_PART), ("input_references", FILM_PART)],
    ),
}

SGLANG_WIRES = {
    "text": Wire(TEXT, {**BASIC, "seconds": 8, "size": "1280x720"}),
    "picture": Wire(PICTURE, {**BASIC, "reference_url": "https://x.example/a.png"}),
    "upload": Wire(UPLOADED, form=[*FORM, ("seconds", "8"), ("input_reference", CAT_PART)]),
    "film": Wire(
        ask(reference_video=Media(url="https://x.example/f.mp4"), expand_prompt=True),
        {**BASIC, "video_url": "https://x.example/f.mp4", "enhance_prompt": True},
    ),
}


CAT_URL = f"data:image/png;base64,{base64.b64encode(CAT).decode()}"
HOOK = "https://gateway.example/hooks/x1"
FRAMES = ask(
    aspect_ratio="9:16",
    loop=False,
    expand_prompt=True,
    first_frame=Media(key="cat"),
    last_frame=Media(url="https://x.example/z.png"),
    n=2,
    metadata={"a": "b"},
    user="u1",
)

LUMA_WORDS = {
    "pending": Status.queued,
    "queued": Status.queued,
    "processing": Status.in_progress,
    "dreaming": Status.in_progress,
    "completed": Status.completed,
    "Completed": Status.completed,
    "failed": Status.failed,
}

GPTGE_WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {"user_prompt": "żółw 🐢"}, path="/luma/generations"),
    "everything": Wire(
        FRAMES,
        {
            "user_prompt": "a paper boat",
            "expand_prompt": True,
            "image_url": CAT_URL,
            "image_end_url": "https://x.example/z.png",
            "notify_hook": HOOK,
            "loop": False,
            "aspect_ratio": "9:16",
        },
        path="/luma/generations",
        task={"callback_url": HOOK},
    ),
    "extend": Wire(
        ask(operation=Operation.extend, expand_prompt=False, last_frame=Media(key="cat")),
        {"user_prompt": "a paper boat", "expand_prompt": False, "image_end_url": CAT_URL, "notify_hook": HOOK},
        path="/luma/generations/video_9%2F%3F/extend",
        task={**MADE, "callback_url": HOOK},
    ),
}

APILAPLAS_PATH = "/v2/generate/video/luma-ai/generation"
APILAPLAS_BASIC = {"model": "ray-2", "prompt": "a paper boat", "aspect_ratio": "16:9"}
LINK = {"link": lambda media: media.url or f"https://gateway.example/{media.key}"}
APILAPLAS_WIRES = {
    "prompt only": Wire(ask(), APILAPLAS_BASIC, path=APILAPLAS_PATH),
    "size": Wire(TEXT, {**APILAPLAS_BASIC, "duration": "8s", "resolution": "720p"}, path=APILAPLAS_PATH),
    "everything": Wire(
        FRAMES.model_copy(update={"seconds": 4.5, "resolution": "2160p"}),
        {
            **APILAPLAS_BASIC,
            "aspect_ratio": "9:16",
            "loop": False,
            "keyframes": {
                "frame0": {"type": "image", "url": "https://gateway.example/cat"},
                "frame1": {"type": "image", "url": "https://x.example/z.png"},
            },
            "duration": "4.5s",
            "resolution": "4k",
            "callback_url": HOOK,
        },
        path=APILAPLAS_PATH,
        task={"callback_url": HOOK, **LINK},
    ),
    "last frame": Wire(
        ask(last_frame=Media(url="https://x.example/z.png")),
        {**APILAPLAS_BASIC, "keyframes": {"frame1": {"type": "image", "url": "https://x.example/z.png"}}},
        path=APILAPLAS_PATH,
    ),
    "extend": Wire(
        ask(operation=Operation.extend, aspect_ratio="21:9"),
        {
            **APILAPLAS_BASIC,
            "aspect_ratio": "21:9",
            "keyframes": {"frame0": {"type": "generation", "id": "video_9/?"}},
        },
        path=APILAPLAS_PATH,
        task=MADE,
    ),
    "extend towards a picture": Wire(
        ask(operation=Operation.extend, last_frame=Media(key="cat")),
        {
            **APILAPLAS_BASIC,
            "keyframes": {
                "frame0": {"type": "generation", "id": "video_9/?"},
                "frame1": {"type": "image", "url": "https://gateway.example/cat"},
            },
        },
        path=APILAPLAS_PATH,
        task={**MADE, **LINK},
    ),
}


def openai_accepted(ref: Any) -> Any:
    return {"id": ref, "object": "video", "status": "queued", "progress": 0}


def luma_accepted(ref: Any) -> Any:
    return {"id": ref, "state": "queued"}


LUNOS_PATH = "/v1/video/generations"
LUNOS_MODEL = "google/veo-3.0-generate-preview"
LUNOS_BASIC = {"model": LUNOS_MODEL, "prompt": "a paper boat", "parameters": {}, "response_format": "mp4"}
LUNOS_WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {**LUNOS_BASIC, "prompt": "żółw 🐢"}, path=LUNOS_PATH),
    "everything": Wire(
        FULL,
        {**LUNOS_BASIC, "parameters": {"aspectRatio": "16:9", "negativePrompt": "blur"}, "user": "u1"},
        path=LUNOS_PATH,
        headers={"x-app-id": "my-app"},
        config={"app_id": "my-app"},
        task={"callback_url": HOOK, "callback_secret": "s3cret"},
    ),
}
LUNOS_WORDS = {
    "pending": Status.queued,
    "processing": Status.in_progress,
    "completed": Status.completed,
    "succeeded": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
}

LUMEN_PATH = "/v1/videos/generations"
LUMEN_BASIC = {"model": "seedance-2", "prompt": "a paper boat"}
LUMEN_WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {**LUMEN_BASIC, "prompt": "żółw 🐢"}, path=LUMEN_PATH),
    "size": Wire(TEXT, {**LUMEN_BASIC, "duration": 8, "resolution": "720p", "aspect_ratio": "16:9"}, path=LUMEN_PATH),
    "everything": Wire(
        MIXED.model_copy(update={"seconds": 4.0, "generate_audio": False, "seed": 1, "user": "u1"}),
        {
            **LUMEN_BASIC,
            "duration": 4,
            "generate_audio": False,
            "image_url": "https://gateway.example/cat",
            "last_image_url": "https://x.example/z.png",
            "reference_image_urls": ["https://x.example/b.png"],
            "reference_video_url": "https://gateway.example/film",
            "webhook_url": HOOK,
            "webhook_secret": "s3cret",
        },
        path=LUMEN_PATH,
        task={"callback_url": HOOK, "callback_secret": "s3cret", **LINK},
    ),
    "no secret, no webhook": Wire(ask(), LUMEN_BASIC, path=LUMEN_PATH, task={"callback_url": HOOK}),
}
LUMEN_WORDS = {
    "queued": Status.queued,
    "processing": Status.in_progress,
    "succeeded": Status.completed,
    "completed": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
}

LUMENFALL_PATH = "/openai/v1/videos"
LUMENFALL_BASIC = {**BASIC, "idempotency_key": "attempt_1"}
LUMENFALL_WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {**LUMENFALL_BASIC, "prompt": "żółw 🐢"}, path=LUMENFALL_PATH),
    "text": Wire(TEXT, {**LUMENFALL_BASIC, "seconds": "8", "size": "1280x720"}, path=LUMENFALL_PATH),
    "everything": Wire(
        FULL,
        {
            **LUMENFALL_BASIC,
            "seconds": "4.5",
            "aspect_ratio": "16:9",
            "resolution": "720p",
            "negative_prompt": "blur",
            "seed": 0,
            "generate_audio": False,
            "loop": True,
            "expand_prompt": True,
            "metadata": {"a": "b"},
            "user": "u1",
            "webhook_url": HOOK,
            **{name: value for name, value in EXTRA.items() if name not in ("prompt", "n", "seconds")},
        },
        path=LUMENFALL_PATH,
        task={"callback_url": HOOK},
    ),
    "upload": Wire(
        UPLOADED,
        {**LUMENFALL_BASIC, "seconds": "8", "input_reference": {"image_url": CAT_URL}},
        path=LUMENFALL_PATH,
    ),
    "pictures": Wire(
        ask(first_frame=Media(key="cat"), reference_images=(Media(url="https://x.example/b.png"),)),
        {**LUMENFALL_BASIC, "input_reference": [{"image_url": CAT_URL}, {"image_url": "https://x.example/b.png"}]},
        path=LUMENFALL_PATH,
    ),
}
LUMENFALL_WORDS = {
    "queued": Status.queued,
    "in_progress": Status.in_progress,
    "in-progress": Status.in_progress,
    "completed": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
}


UPSTREAMS = (
    Upstream(
        "openai",
        OpenAI,
        FakeOpenAI,
        OPENAI_WIRES,
        OPENAI_WORDS,
        openai_accepted,
        idempotent=({"idempotency": "header"}, {"idempotency": "body"}),
    ),
    Upstream(
        "vllm-omni", OpenAI, FakeVllmOmni, VLLM_WIRES, OPENAI_WORDS, openai_accepted, config={"flavor": "vllm-omni"}
    ),
    Upstream(
        "sglang",
        OpenAI,
        FakeSGLang,
        SGLANG_WIRES,
        OPENAI_WORDS,
        openai_accepted,
        config={"flavor": "sglang"},
        stops=False,
    ),
    Upstream(
        "gptge",
        GptGe,
        FakeGptGe,
        GPTGE_WIRES,
        {**LUMA_WORDS, "SUCCESS": Status.completed, "FAILURE": Status.failed},
        luma_accepted,
        prefix="",
        model="luma",
        credit=(403, "user quota is not enough", "insufficient_user_quota"),
        cancels=False,
        streams=False,
    ),
    Upstream(
        "apilaplas",
        Apilaplas,
        FakeApilaplas,
        APILAPLAS_WIRES,
        LUMA_WORDS,
        luma_accepted,
        prefix="",
        model="ray-2",
        cancels=False,
        streams=False,
    ),
    Upstream(
        "lunos",
        Lunos,
        FakeLunos,
        LUNOS_WIRES,
        LUNOS_WORDS,
        lambda ref: {"id": ref, "operation_name": "operations/1", "status": "pending"},
        prefix="/v1",
        model=LUNOS_MODEL,
        cancels=False,
    ),
    Upstream(
        "lumen",
        Lumen,
        FakeLumen,
        LUMEN_WIRES,
        LUMEN_WORDS,
        lambda ref: {"id": ref, "status": "processing", "created": 1_700_000_000},
        prefix="/v1",
        model="seedance-2",
        moderation=(400, "content blocked", "invalid_request"),
        cancels=False,
        streams=False,
    ),
    Upstream(
        "lumenfall",
        Lumenfall,
        FakeLumenfall,
        LUMENFALL_WIRES,
        LUMENFALL_WORDS,
        openai_accepted,
        prefix="/openai/v1",
        moderation=(400, "The prompt is not allowed", "CONTENT_POLICY_VIOLATION"),
        credit=(402, "Insufficient balance: $0.05 required, $0.02 available", "INSUFFICIENT_BALANCE"),
        stopped_by=(204,),
        resubmits=True,
        idempotent=({},),
        streams=False,
    ),
)


@asynccontextmanager
async def read(media: Media) -> AsyncIterator[Upload]:
    filename, content_type, content = UPLOADS[media.key or ""]

    async def chunks() -> AsyncIterator[bytes]:
        yield content[:1000]
        yield content[1000:]

    yield Upload(filename, content_type, len(content), chunks())


@dataclass
class Door:
    """One server and one provider for all tests of an upstream, since TLS contexts are slow to make; each test brings
    its own fake."""

    fake: Fake
    origin: str = ""
    provider: Provider | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.fake(scope, receive, send)


@dataclass
class Stage:
    """A provider in front of its fake."""

    upstream: Upstream
    fake: Fake
    origin: str
    stack: AsyncExitStack

    def provider(self, base_url: str | None = None, *, allow: bool = True, **config: Any) -> Provider:
        values = {"api_key": KEY, "base_url": base_url or self.origin + self.upstream.prefix, "timeout_s": 5}
        kind = self.upstream.kind
        provider = kind("up", kind.Config(**values | self.upstream.config | config), (LOOPBACK,) if allow else ())
        self.stack.push_async_callback(provider.aclose)
        return provider

    def task(self, request: VideoRequest | None = None, **fields: Any) -> Task:
        values = {"id": "attempt_1", "model": self.upstream.model, "request": request or ask(), "read": read}
        return Task(**{"now": NOW, **values, **fields})

    async def submitted(self, provider: Provider) -> Task:
        task = self.task()
        return self.task(ref=(await provider.submit(task)).ref, submitted_at=NOW)


@pytest.fixture(params=UPSTREAMS, ids=lambda upstream: upstream.name)
def upstream(request: pytest.FixtureRequest) -> Upstream:
    found: Upstream = request.param
    return found


@pytest.fixture(scope="module")
async def doors() -> AsyncIterator[dict[str, Door]]:
    doors = {upstream.name: Door(upstream.fake()) for upstream in UPSTREAMS}
    async with AsyncExitStack() as stack:
        for upstream in UPSTREAMS:
            door = doors[upstream.name]
            door.origin = await stack.enter_async_context(serve(door))
            door.provider = Stage(upstream, door.fake, door.origin, stack).provider()
        yield doors


@pytest.fixture
async def stage(upstream: Upstream, doors: dict[str, Door]) -> AsyncIterator[Stage]:
    door = doors[upstream.name]
    door.fake = upstream.fake()
    async with AsyncExitStack() as stack:
        yield Stage(upstream, door.fake, door.origin, stack)


@pytest.fixture
def provider(upstream: Upstream, stage: Stage, doors: dict[str, Door]) -> Provider:
    provider = doors[upstream.name].provider
    assert provider is not None
    return provider


async def content(provider: Provider, task: Task, output: Output | None) -> bytes:
    assert output is not None
    async with provider.fetch(task, output) as download:
        return b"".join([chunk async for chunk in download.chunks])


async def finished(stage: Stage, provider: Provider) -> tuple[Task, Output]:
    task = await stage.submitted(provider)
    stage.fake.finish(task.ref or "")
    progress = await provider.poll(task)
    assert progress.output is not None
    return task, progress.output


# Submit


async def test_submit_accepted(stage: Stage, provider: Provider) -> None:
    submission = await provider.submit(stage.task())
    assert submission.ref in stage.fake.jobs
    assert submission.status is stage.upstream.words[stage.fake.waiting]
    assert submission.raw_status == stage.fake.waiting


@pytest.mark.parametrize(
    ("upstream", "wire"),
    [pytest.param(one, name, id=f"{one.name}-{name.replace(' ', '_')}") for one in UPSTREAMS for name in one.wires],
)
async def test_submit_on_the_wire(stage: Stage, upstream: Upstream, wire: str) -> None:
    expected = upstream.wires[wire]
    await stage.provider(**expected.config).submit(stage.task(expected.request, **expected.task))
    (call,) = stage.fake.submits
    assert (call.method, call.path, call.query) == ("POST", expected.path, "")
    assert (call.json, call.form) == (expected.json, expected.form)
    sent = {name: value for name, value in call.headers.items() if name not in ("host", "content-length", "user-agent")}
    kind = sent.pop("content-type")
    assert kind == "application/json" if expected.form is None else kind.startswith("multipart/form-data; boundary=")
    common = {"accept": "*/*", "accept-encoding": "identity", "connection": "keep-alive"}
    assert sent == {**common, "authorization": f"Bearer {KEY}", **expected.headers}
    assert "content-length" in call.headers
    assert call.headers["user-agent"].startswith("video-gateway/")


@pytest.mark.parametrize("upstream", [one for one in UPSTREAMS if one.streams], ids=lambda upstream: upstream.name)
async def test_upload_is_never_in_memory_as_a_whole(stage: Stage, upstream: Upstream) -> None:
    size = 48 * 2**20

    @asynccontextmanager
    async def large(media: Media) -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(size // 2**20):
                yield bytes(2**20)

        yield Upload("a.png", "image/png", size, chunks())

    body = b'{"id":"video_1","status":"queued"}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
    async with serve_bytes(answer) as origin:
        task = stage.task(ask(first_frame=Media(key="large")), read=large)
        tracemalloc.start()
        try:
            await stage.provider(origin).submit(task)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < size / 3


@pytest.mark.parametrize(
    ("upstream", "config"), [(upstream, config) for upstream in UPSTREAMS for config in upstream.idempotent]
)
async def test_same_submit_twice_makes_one_task(stage: Stage, upstream: Upstream, config: dict[str, Any]) -> None:
    provider = stage.provider(**config)
    stage.fake.script("submit", Reset())
    with pytest.raises(errors.UpstreamUnknown):
        await provider.submit(stage.task())
    assert provider.can_resubmit
    submission = await provider.submit(stage.task())
    assert list(stage.fake.jobs) == [submission.ref]


async def test_resubmit_is_refused_unless_configured(upstream: Upstream, provider: Provider) -> None:
    assert provider.can_resubmit is upstream.resubmits


async def test_submit_rejected(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", stage.fake.refusal(400, "seconds must be one of 4, 8", "invalid_value"))
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.submit(stage.task())
    assert type(caught.value) is errors.UpstreamRejected
    assert caught.value.message == "seconds must be one of 4, 8"
    assert caught.value.upstream_status == 400
    assert not caught.value.next_candidate


async def test_submit_moderated(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", stage.fake.refusal(*stage.upstream.moderation))
    with pytest.raises(errors.ContentPolicy) as caught:
        await provider.submit(stage.task())
    assert caught.value.message == stage.upstream.moderation[1]


async def test_wrong_key(stage: Stage) -> None:
    with pytest.raises(errors.UpstreamAccount) as caught:
        await stage.provider(api_key="sk-wrong-000000").submit(stage.task())
    assert type(caught.value) is errors.UpstreamAccount
    assert caught.value.next_candidate
    assert stage.fake.jobs == {}


async def test_no_credit(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", stage.fake.refusal(*stage.upstream.credit))
    with pytest.raises(errors.UpstreamCredit):
        await provider.submit(stage.task())


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, 1.5),
        ({"retry-after": "DATE"}, 60, 91),
        ({"retry-after": "soon"}, None, None),
        ({"retry-after": "inf"}, 1, 86_400),
        ({}, None, None),
    ],
    ids=["seconds", "milliseconds", "date", "nonsense", "for_ever", "nothing"],
)
async def test_busy(
    stage: Stage, provider: Provider, headers: dict[str, str], low: float | None, high: float | None
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    headers = {name: value.replace("DATE", date) for name, value in headers.items()}
    stage.fake.script("submit", stage.fake.refusal(429, "Rate limit reached", "rate_limit_exceeded", headers))
    with pytest.raises(errors.UpstreamRateLimited) as caught:
        await provider.submit(stage.task())
    after = caught.value.retry_after_s
    assert after is None if low is None or high is None else after is not None and low <= after <= high


UNKNOWN = {
    "500": Answer(500, {"error": {"message": "The server had an error", "type": "server_error"}}),
    "502 page": Answer(502, HTML),
    "html": Answer(200, HTML),
    "empty": Answer(200, b""),
    "no content": Answer(204, b""),
    "truncated json": Answer(200, b'{"id":"video_1","status":"que', {"content-type": "application/json"}),
    "array": Answer(200, []),
    "number": Answer(200, b"7"),
    "deep": Answer(200, b"[" * 100_000),
    "not utf-8": Answer(200, b'{"id":"\xff\xfe"'),
    "short": BrokenOff(b'{"id":"video_1"}', promised=400),
    "reset": Reset(),
    "huge": Answer(200, b'{"id":"video_1","pad":"' + b"x" * MAX_ANSWER_BYTES + b'"}'),
    "no id": Answer(200, {"object": "video", "status": "queued"}),
}


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=[name.replace(" ", "_") for name in UNKNOWN])
async def test_submit_with_unknown_outcome(stage: Stage, provider: Provider, fault: Any) -> None:
    stage.fake.script("submit", fault)
    with pytest.raises(errors.UpstreamUnknown) as caught:
        await provider.submit(stage.task())
    assert len(stage.fake.submits) == 1
    assert not caught.value.retryable
    assert not caught.value.next_candidate


async def test_submit_without_answer(stage: Stage) -> None:
    stage.fake.script("submit", Hang())
    with pytest.raises(errors.UpstreamUnknown):
        await stage.provider(timeout_s=0.15).submit(stage.task())
    assert len(stage.fake.jobs) == 1


async def test_nobody_listens(stage: Stage) -> None:
    provider = stage.provider(closed_port() + stage.upstream.prefix)
    with pytest.raises(errors.UpstreamUnavailable) as caught:
        await provider.submit(stage.task())
    assert caught.value.next_candidate
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(stage.task(ref="video_1"))


@pytest.mark.parametrize("ref", ["../../etc", "a/b?c=d#e", "a\nb c", "é🐢", "%2e%2e", "x" * 512])
async def test_hostile_id_stays_in_its_place(stage: Stage, provider: Provider, ref: str) -> None:
    stage.fake.script("submit", Answer(200, stage.upstream.accepted(ref)))
    submission = await provider.submit(stage.task())
    assert submission.ref == ref
    with pytest.raises(errors.UpstreamGone):
        await provider.poll(stage.task(ref=ref))
    await provider.cancel(stage.task(ref=ref))
    assert stage.fake.calls["other"] == []
    call = stage.fake.polls[0]
    assert ref in [*segments(call.path), *(value for _, value in parse_qsl(call.query))]


@pytest.mark.parametrize("ref", ["", ".", "..", "x" * 513, "x" * 10_000, 7, None, ["x"], {}, "a\0b", "\ud800"])
async def test_useless_id_is_an_unknown_outcome(stage: Stage, provider: Provider, ref: Any) -> None:
    stage.fake.script("submit", Answer(200, stage.upstream.accepted(ref)))
    with pytest.raises(errors.UpstreamUnknown):
        await provider.submit(stage.task())


# Poll


async def test_poll_until_completed(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    seen = [(await provider.poll(task)).status for _ in range(3)]
    fake = stage.fake
    assert seen == [stage.upstream.words[word] for word in (fake.waiting, fake.working, fake.done)]
    assert seen[-1] is Status.completed
    assert len(stage.fake.submits) == 1


async def test_poll_vocabulary(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    for word, status in stage.upstream.words.items():
        stage.fake.show(task.ref or "", word)
        progress = await provider.poll(task)
        assert (word, progress.status, progress.raw_status) == (word, status, word)
        assert (progress.output is not None) == (status is Status.completed)
        assert (progress.failure is not None) == (status is Status.failed)


@pytest.mark.parametrize("word", ["reticulating", "", "constructor", "x" * 5000, "a\0b"])
async def test_unknown_status_word_is_still_running(stage: Stage, provider: Provider, word: str) -> None:
    task = await stage.submitted(provider)
    stage.fake.show(task.ref or "", word)
    with capture_logs() as logs:
        progress = await provider.poll(task)
    assert progress.status is Status.in_progress
    assert [(entry["log_level"], entry["provider"], entry["status"]) for entry in logs] == [
        ("warning", "up", word[:100].replace("\0", ""))
    ]


async def test_failed_carries_the_message(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.fail(task.ref or "", message="CUDA out of memory")
    progress = await provider.poll(task)
    assert progress.status is Status.failed
    assert progress.failure is not None
    assert progress.failure.model_dump() == {"code": "generation_failed", "message": "CUDA out of memory"}


async def test_failed_by_moderation(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.fail(task.ref or "", message="The output was blocked by our moderation system")
    progress = await provider.poll(task)
    assert progress.failure is not None
    assert progress.failure.code == "content_policy_violation"


async def test_failed_without_a_word(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.fail(task.ref or "")
    progress = await provider.poll(task)
    assert progress.failure is not None
    assert progress.failure.model_dump() == {"code": "generation_failed", "message": "up reports the video as failed"}


async def test_gone(stage: Stage, provider: Provider) -> None:
    with pytest.raises(errors.UpstreamGone):
        await provider.poll(stage.task(ref="video_never_made"))


NO_VERDICT: dict[str, tuple[Any, type[errors.UpstreamError]]] = {
    "401": (Answer(401, {"error": {"message": "no"}}), errors.UpstreamAccount),
    "408": (Answer(408, b""), errors.UpstreamUnavailable),
    "429": (Answer(429, b"", {"retry-after": "3"}), errors.UpstreamRateLimited),
    "500": (Answer(500, {"error": {"message": "oops"}}), errors.UpstreamUnavailable),
    "502 page": (Answer(502, HTML), errors.UpstreamUnavailable),
    "another job failed": (Answer(500, {"id": "another", "status": "failed"}), errors.UpstreamUnavailable),
    "html": (Answer(200, HTML), errors.UpstreamUnavailable),
    "empty": (Answer(200, b""), errors.UpstreamUnavailable),
    "truncated json": (Answer(200, b'{"id":"vi'), errors.UpstreamUnavailable),
    "deep": (Answer(200, b"[" * 100_000), errors.UpstreamUnavailable),
    "reset": (Reset(), errors.UpstreamUnavailable),
    "huge": (UNKNOWN["huge"], errors.UpstreamUnavailable),
}


@pytest.mark.parametrize("name", NO_VERDICT, ids=[name.replace(" ", "_") for name in NO_VERDICT])
async def test_trouble_while_polling_is_no_verdict(stage: Stage, provider: Provider, name: str) -> None:
    fault, kind = NO_VERDICT[name]
    task = await stage.submitted(provider)
    stage.fake.script("poll", fault)
    with pytest.raises(kind):
        await provider.poll(task)
    assert isinstance(await provider.poll(task), Progress)


# File


async def test_completed_gives_the_file(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    async with provider.fetch(task, output) as download:
        assert download.size == len(stage.fake.file)
        assert download.content_type == "video/mp4"
        assert b"".join([chunk async for chunk in download.chunks]) == stage.fake.file
    assert [call.query for call in stage.fake.contents] == [""]


async def test_file_that_is_gone(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", stage.fake.refusal(404, "File not found"))
    with pytest.raises(errors.UpstreamGone):
        await content(provider, task, output)


async def test_file_that_is_not_there_yet(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", Answer(500, HTML))
    with pytest.raises(errors.UpstreamUnavailable):
        await content(provider, task, output)
    assert await content(provider, task, output) == stage.fake.file


async def test_file_that_breaks_off(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", BrokenOff(stage.fake.file[:100], promised=len(stage.fake.file)))
    with pytest.raises(errors.UpstreamUnavailable):
        await content(provider, task, output)


# Where the key goes, and where it does not


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["other_port", "other_host"])
async def test_file_elsewhere_gets_no_key(stage: Stage, host: str) -> None:
    provider = stage.provider(stage.origin.replace("127.0.0.1", host) + stage.upstream.prefix)
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        stage.fake.elsewhere(task.ref or "", f"{other}/file.mp4?sig=1")
        progress = await provider.poll(task)
        assert await content(provider, task, progress.output) == elsewhere.file
    (call,) = elsewhere.calls
    assert (call.path, call.query) == ("/file.mp4", "sig=1")
    assert KEY not in str(call)


async def test_file_at_a_private_address_is_not_fetched(stage: Stage) -> None:
    home = stage.origin.replace("127.0.0.1", "localhost") + stage.upstream.prefix
    provider = stage.provider(home, allow=False)
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        stage.fake.elsewhere(task.ref or "", f"{other}/latest/meta-data")
        progress = await provider.poll(task)
        with pytest.raises(errors.UpstreamUnavailable):
            await content(provider, task, progress.output)
    assert elsewhere.calls == []


@pytest.mark.parametrize("url", ["http://[::1", "http://a\0b/", "https://x.example:99999999/"])
async def test_file_at_no_address_at_all(stage: Stage, provider: Provider, url: str) -> None:
    task = await stage.submitted(provider)
    stage.fake.elsewhere(task.ref or "", url)
    progress = await provider.poll(task)
    if progress.failure is not None:
        assert (progress.status, progress.output, progress.failure.code) == (Status.failed, None, "no_output")
        return
    with pytest.raises((errors.UpstreamUnavailable, errors.UpstreamGone)):
        await content(provider, task, progress.output)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_does_not_leak_the_key(stage: Stage, provider: Provider, status: int) -> None:
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        for verb in ("submit", "poll"):
            stage.fake.script(verb, Answer(status, headers={"location": f"{other}/v1/videos"}))
        with pytest.raises((errors.UpstreamUnknown, errors.UpstreamAccount)):
            await provider.submit(task)
        with pytest.raises((errors.UpstreamUnavailable, errors.UpstreamAccount)):
            await provider.poll(task)
    assert elsewhere.calls == []


async def test_a_key_in_place_of_a_status_is_not_told(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.show(task.ref or "", f"unauthorized: {'x' * 70} {KEY}")
    with capture_logs() as logs:
        progress = await provider.poll(task)
    assert "unauthorized" in str(logs)
    assert KEY[:8] not in f"{logs} {progress}"


async def test_secrets_are_never_told(stage: Stage, provider: Provider) -> None:
    link = "https://me:T0KEN@gw.example/media/uploads/video_1/0?exp=1&sig=T0KEN"
    told = f"key {KEY} refused by {stage.origin}{stage.upstream.prefix}/videos and {stage.origin[7:]}"
    told += f" for {link} and https://gw.example/callbacks/att_1/T0KEN"
    caught: list[errors.UpstreamError] = []
    task = await stage.submitted(provider)
    for status in (400, 401, 402, 404, 429, 500):
        stage.fake.script("submit", stage.fake.refusal(status, told))
        stage.fake.script("poll", stage.fake.refusal(status, told))
        for call in (provider.submit, provider.poll):
            with pytest.raises(errors.UpstreamError) as error:
                await call(task)
            caught.append(error.value)
    stage.fake.fail(task.ref or "", message=told)
    progress = await provider.poll(task)
    words = [repr(provider), repr(provider.config), str(provider.config), repr(progress.failure)]
    words += [word for error in caught for word in (str(error), repr(error), error.message, str(error.body))]
    assert [word for word in words if KEY in word or "T0KEN" in word] == []
    assert [word for word in words[3:] if stage.origin[7:] in word] == []
    assert provider.fingerprint
    assert provider.fingerprint not in KEY


async def test_an_answer_that_comes_drop_by_drop(stage: Stage) -> None:
    provider = stage.provider(timeout_s=0.2)
    task = await stage.submitted(provider)
    stage.fake.script("poll", Drip())
    stage.fake.script("submit", Drip())
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(task)
    with pytest.raises(errors.UpstreamUnknown):
        await provider.submit(task)


# Cancel


async def test_cancel(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    assert await provider.cancel(task) is (stage.upstream.cancels and stage.upstream.stops)
    assert len(stage.fake.deletes) == int(stage.upstream.cancels)


async def test_cancel_of_what_is_gone(stage: Stage, provider: Provider) -> None:
    assert await provider.cancel(stage.task(ref="video_never_made")) is stage.upstream.cancels


@pytest.mark.parametrize("status", [204, 400, 405, 409, 422, 501])
async def test_cancel_that_is_not_certain(stage: Stage, provider: Provider, status: int) -> None:
    task = await stage.submitted(provider)
    stage.fake.script("cancel", Answer(status))
    assert await provider.cancel(task) is (status in stage.upstream.stopped_by)


async def test_character(stage: Stage, provider: Provider) -> None:
    if not provider.characters:
        with pytest.raises(NotImplementedError):
            await provider.create_character("Mossy", Media(key="film"), read)
        return
    assert await provider.create_character("Mossy", Media(key="film"), read) == "char_1"
    (call,) = stage.fake.calls["character"]
    assert (call.method, call.path) == ("POST", "/v1/videos/characters")
    assert call.form == [("name", "Mossy"), ("video", FILM_PART)]


# What only OpenAI-shaped servers do

OPENAI_SHAPED = pytest.mark.parametrize(
    "upstream", [one for one in UPSTREAMS if one.kind is OpenAI], ids=lambda upstream: upstream.name
)


@OPENAI_SHAPED
@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_failed_job_under_an_error_status_is_a_verdict(stage: Stage, provider: Provider, status: int) -> None:
    task = await stage.submitted(provider)
    error = {"code": status, "message": "out of memory"}
    stage.fake.script("poll", Answer(status, {"id": task.ref, "object": "video", "status": "failed", "error": error}))
    progress = await provider.poll(task)
    assert progress.model_dump(exclude_none=True) == {
        "status": Status.failed,
        "raw_status": "failed",
        "failure": {"code": "generation_failed", "message": "out of memory"},
    }


@OPENAI_SHAPED
@pytest.mark.parametrize("error", ["too hot", {"message": "too hot"}, {"detail": "too hot"}, {"message": ["too hot"]}])
async def test_failure_as_text_or_object(stage: Stage, provider: Provider, error: Any) -> None:
    task = await stage.submitted(provider)
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "failed", "error": error}))
    failure = (await provider.poll(task)).failure
    assert failure is not None
    assert "too hot" in failure.message


@OPENAI_SHAPED
@pytest.mark.parametrize(
    ("word", "code"), [("cancelled", "cancelled"), ("expired", "expired"), ("deleted", "cancelled"), ("failed", "boom")]
)
async def test_failure_has_a_code(stage: Stage, provider: Provider, word: str, code: str) -> None:
    task = await stage.submitted(provider)
    error = {"code": "boom"} if word == "failed" else None
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": word, "error": error}))
    failure = (await provider.poll(task)).failure
    assert failure is not None
    assert failure.code == code


@OPENAI_SHAPED
@pytest.mark.parametrize(
    ("said", "read"),
    [(33, 33), (33.9, 33), (-5, 0), (250, 100), (True, None), ("33", None), (None, None), (1e400, None), ([], None)],
)
async def test_progress_is_a_percentage_or_nothing(stage: Stage, provider: Provider, said: Any, read: Any) -> None:
    task = await stage.submitted(provider)
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "in_progress", "progress": said}))
    assert (await provider.poll(task)).progress == read


@OPENAI_SHAPED
@pytest.mark.parametrize(
    ("said", "read"),
    [("2500", 2.5), ("999999999", 300), ("9" * 5000, None), ("1500.5", None), ("-1", None), ("²", None)],
)
async def test_poll_after(stage: Stage, provider: Provider, said: str, read: float | None) -> None:
    task = await stage.submitted(provider)
    headers = {"openai-poll-after-ms": said}
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "in_progress"}, headers))
    stage.fake.script("submit", Answer(200, {"id": "video_2", "status": "queued"}, headers))
    assert (await provider.poll(task)).poll_after_s == read
    assert (await provider.submit(task)).poll_after_s == read


@OPENAI_SHAPED
@pytest.mark.parametrize("status", [400, 404, 405, 501])
@pytest.mark.parametrize("named", [{"url": "URL"}, {"output": {"url": "URL"}}, {"output": "URL"}, {"video_url": "URL"}])
async def test_file_without_a_content_call(
    stage: Stage, provider: Provider, status: int, named: dict[str, Any]
) -> None:
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        url = f"{other}/a.mp4"
        job = {name: {"url": url} if isinstance(value, dict) else url for name, value in named.items()}
        stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "completed", **job}))
        output = (await provider.poll(task)).output
        stage.fake.script("content", Answer(status, b""))
        assert await content(provider, task, output) == elsewhere.file
    assert "authorization" not in elsewhere.calls[0].headers


@OPENAI_SHAPED
@pytest.mark.parametrize("status", [400, 404, 405, 410, 501])
async def test_file_without_a_content_call_or_an_address(stage: Stage, provider: Provider, status: int) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", Answer(status, b""))
    with pytest.raises(errors.UpstreamGone):
        await content(provider, task, output)


@OPENAI_SHAPED
async def test_submit_that_is_over_at_once_is_still_polled(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", Answer(200, {"id": "video_1", "status": "failed"}))
    submission = await provider.submit(stage.task())
    assert (submission.status, submission.raw_status) == (Status.in_progress, "failed")


@OPENAI_SHAPED
async def test_remix_of_a_foreign_video_is_not_sent(stage: Stage, provider: Provider) -> None:
    with pytest.raises(errors.UpstreamRejected):
        await provider.submit(stage.task(ask(operation=Operation.remix, source=Media(key="film"))))
    assert stage.fake.submits == []


@OPENAI_SHAPED
async def test_server_without_a_key(stage: Stage) -> None:
    provider = stage.provider(api_key=None)
    with pytest.raises(errors.UpstreamAccount):
        await provider.submit(stage.task())
    assert "authorization" not in stage.fake.submits[0].headers
    assert provider.fingerprint == ""


async def test_delete_while_vllm_omni_drains(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    if isinstance(stage.fake, FakeVllmOmni):
        stage.fake.draining = True
        assert await provider.cancel(task) is False
        stage.fake.restart()
        with pytest.raises(errors.UpstreamGone):
            await provider.poll(task)
