"""Apilaplas' Luma v2: one create for new videos and extensions, queries for one or many, and the long poll.

The shape of answers is not published; this is Luma's own with `video.url` beside it.
"""

from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

from app.providers.apilaplas import Apilaplas
from app.video import Media, Operation
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import FRAMES, HOOK, LINK, LUMA_WORDS, MADE, TEXT, Upstream, Wire, ask, luma_accepted

CREATED_AT = "2025-03-11T07:13:27.813Z"
REQUEST_ID = "0c5c2a4e-2d0b-4f3c-9d2e-6b1f0a9d7c11"
FIELDS = {
    "prompt",
    "aspect_ratio",
    "loop",
    "keyframes",
    "generation_type",
    "callback_url",
    "model",
    "resolution",
    "duration",
    "concepts",
}
ORDER = ("queued", "dreaming", "completed", "failed")


class FakeApilaplas(Fake):
    """`wrapped` puts the answer about many into an object under that name. A long poll is over at once: the job moves
    on to the state it waits for, or its 30 s pass in no time."""

    working = "dreaming"

    def __init__(self, *, wrapped: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wrapped = wrapped
        self.calls["poll_many"] = []

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v2", "generate", "video", "luma-ai", "generation"]:
                return "submit", ""
            case "GET", ["v2", "generate", "video", "luma-ai", "generation"]:
                return "poll", ""
            case "GET", ["v2", "generate", "video", "luma-ai", "generations"]:
                return "poll_many", ""
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return call.path.startswith("/files/") or super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        query = parse_qs(call.query, keep_blank_values=True)
        match verb:
            case "submit":
                return self.create(call)
            case "poll":
                return self.poll(query, call)
            case "poll_many":
                refs = query.get("generation_ids[]") or ",".join(query.get("generation_ids", [])).split(",")
                found = [self.document(self.polled(self.jobs[ref]), call) for ref in refs if ref in self.jobs]
                return as_json({self.wrapped: found} if self.wrapped else found)
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return self.refuse(404, "Not Found")

    def create(self, call: Call) -> Response:
        asked = call.fields
        missing = [name for name in ("prompt", "aspect_ratio") if not asked.get(name)]
        if missing or not set(asked) <= FIELDS:
            return self.refuse(400, f"invalid: {', '.join(missing or sorted(set(asked) - FIELDS))}")
        job = self.job(f"755f9bbb-d99b-4880-992b-{len(self.jobs) + 1:012}", asked)
        return as_json(self.document(job, call), 201)

    def poll(self, query: dict[str, list[str]], call: Call) -> Response:
        job = self.jobs.get(query.get("generation_id", [""])[0])
        if job is None:
            return self.refuse(404, "Generation is not found")
        wanted = (query.get("state") or query.get("status") or [job.status])[0]
        if wanted != job.status and wanted not in ORDER[:-1]:
            return self.refuse(400, f"state must be one of {', '.join(ORDER[:-1])}")
        self.polled(job)
        while job.moving and job.status in ORDER and ORDER.index(job.status) < ORDER.index(wanted):
            self.polled(job)
        return as_json(self.document(job, call))

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw = {"assets": {"video": url}, "video": None}

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        envelope = {"message": message, "path": "/v2/generate/video/luma-ai/generation", "requestId": REQUEST_ID}
        return as_json({**envelope, "statusCode": str(status), "timestamp": CREATED_AT}, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        url = f"http://{call.headers['host']}/files/{job.ref}.mp4"
        done = job.status.lower() == self.done
        return {
            "id": job.ref,
            "generation_type": "video",
            "state": job.status,
            "failure_reason": job.message,
            "created_at": CREATED_AT,
            "assets": {"video": url} if done else None,
            "video": {"url": url} if done else None,
            "model": job.asked.get("model", "ray-1-6"),
            "request": {**job.asked, "keyframes": job.asked.get("keyframes")},
            **job.raw,
        }


PATH = "/v2/generate/video/luma-ai/generation"

REQUEST = {"model": "ray-2", "prompt": "a paper boat", "aspect_ratio": "16:9"}

WIRES = {
    "prompt only": Wire(ask(), REQUEST, path=PATH),
    "size": Wire(TEXT, {**REQUEST, "duration": "8s", "resolution": "720p"}, path=PATH),
    "everything": Wire(
        FRAMES.model_copy(update={"seconds": 4.5, "resolution": "2160p"}),
        {
            **REQUEST,
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
        path=PATH,
        task={"callback_url": HOOK, **LINK},
    ),
    "last frame": Wire(
        ask(last_frame=Media(url="https://x.example/z.png")),
        {**REQUEST, "keyframes": {"frame1": {"type": "image", "url": "https://x.example/z.png"}}},
        path=PATH,
    ),
    "extend": Wire(
        ask(operation=Operation.extend, aspect_ratio="21:9"),
        {
            **REQUEST,
            "aspect_ratio": "21:9",
            "keyframes": {"frame0": {"type": "generation", "id": "video_9/?"}},
        },
        path=PATH,
        task=MADE,
    ),
    "prepend": Wire(
        ask(operation=Operation.prepend, first_frame=Media(url="https://x.example/a.png")),
        {
            **REQUEST,
            "keyframes": {
                "frame0": {"type": "image", "url": "https://x.example/a.png"},
                "frame1": {"type": "generation", "id": "video_9/?"},
            },
        },
        path=PATH,
        task=MADE,
    ),
    "extend towards a picture": Wire(
        ask(operation=Operation.extend, last_frame=Media(key="cat")),
        {
            **REQUEST,
            "keyframes": {
                "frame0": {"type": "generation", "id": "video_9/?"},
                "frame1": {"type": "image", "url": "https://gateway.example/cat"},
            },
        },
        path=PATH,
        task={**MADE, **LINK},
    ),
}

UPSTREAMS = (
    Upstream(
        "apilaplas",
        Apilaplas,
        FakeApilaplas,
        WIRES,
        LUMA_WORDS,
        luma_accepted,
        prefix="",
        model="ray-2",
        cancels=False,
        streams=False,
    ),
)
