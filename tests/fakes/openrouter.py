"""OpenRouter's video API as recordings of its clients have it (`tests/recordings/openrouter.json`), with the list of
models of this release."""

import json
from typing import Any

from starlette.responses import Response

from app.providers.openrouter import OpenRouter
from app.providers.openrouter.listing import FILE
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, HOOK, Upstream, Wire, ask

STATUSES = {
    "pending": "poll pending",
    "in_progress": "poll in_progress",
    "completed": "poll completed",
    "failed": "poll failed",
    "cancelled": "poll cancelled",
    "expired": "poll expired",
    "dead": "node poll dead",
}
"""The recorded answer for each status word; that of `pending` for all else."""
ERRORS = (400, 401, 402, 403, 404, 413, 429, 499, 500, 502, 503, 524, 529)
"""Statuses of which an answer to a submit is recorded; that of 400 for all else."""
FIELDS = {"model", "prompt", "duration", "resolution", "aspect_ratio", "size", "generate_audio", "seed", "user"}
FIELDS |= {"frame_images", "input_references", "callback_url", "previous_job_id", "provider", "session_id", "trace"}
FIELDS |= {"creativity", "upscale_factor"}
MAX_BODY_BYTES = 50 * 2**20
LISTED: dict[str, dict[str, Any]] = {row["id"]: row for row in json.loads(FILE.read_text("utf-8"))["data"]}
OURS = ("input_references", "operation")
"""Fields of the released list that the vendor's does not have."""
EXPIRES_AT = 4_102_444_800
"""The end of a signed link, Unix seconds: the year 2100."""
CHOICES = {
    "duration": "supported_durations",
    "resolution": "supported_resolutions",
    "aspect_ratio": "supported_aspect_ratios",
}


class FakeOpenRouter(Fake):
    """Judges a request by the row of its model, as far as it has one. The content call has the `original` of a
    file, and a signed address, which refuses a key, has the copy that is `stored`."""

    waiting = "pending"
    verbs = (*Fake.verbs, "models")

    def __init__(self, *, stored: bool = False, original: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stored, self.original = stored, original
        self.rows: Any = [self.row(name) for name in LISTED]
        """Rows of the list of models."""

    @staticmethod
    def row(name: str, **changed: Any) -> dict[str, Any]:
        """The row of a model in the vendor's shape."""
        shape: dict[str, Any] = recorded("openrouter", "models")["data"][0]
        own = {field: value for field, value in LISTED[name].items() if field not in OURS}
        return shape | {"canonical_slug": name, "name": name} | own | changed

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["api", "v1", "videos"]:
                return "submit", ""
            case "GET", ["api", "v1", "videos", "models"]:
                return "models", ""
            case "GET", ["api", "v1", "videos", ref]:
                return "poll", ref
            case "GET", ["api", "v1", "videos", ref, "content"]:
                return "content", ref
            case "GET", ["store", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return "authorization" not in call.headers if call.path.startswith("/store/") else super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        job = self.jobs.get(subject.removesuffix(".mp4"))
        match verb:
            case "submit":
                return self.create(call)
            case "models":
                return as_json({"data": self.rows})
            case "poll" if job is not None:
                return as_json(self.document(self.polled(job), call))
            case "content" if job is not None:
                return self.content(job, call)
        return as_json(recorded("openrouter", "poll 404"), 404)

    def create(self, call: Call) -> Response:
        asked = call.fields
        row = LISTED.get(asked.get("model", ""), {})
        wrong = [
            name
            for name, field in CHOICES.items()
            if name in asked and row.get(field) and asked[name] not in row[field]
        ]
        parts = [*asked.get("frame_images", ()), *asked.get("input_references", ())]
        fine = (
            not set(asked) - FIELDS
            and not wrong
            and (asked.get("prompt") or parts)
            and not ("size" in asked and ("resolution" in asked or "aspect_ratio" in asked))
            and all(part[part["type"]]["url"].startswith(("https://", "data:")) for part in parts)
            and isinstance(asked.get("duration", 1), int)
            and asked.get("callback_url", "https://").startswith("https://")
        )
        if int(call.headers.get("content-length", "0")) > MAX_BODY_BYTES:
            return self.refuse(413, "Request body too large")
        previous = asked.get("previous_job_id")
        if previous is not None:
            source = self.jobs.get(previous)
            if source is None or source.asked["model"] != asked["model"]:
                return self.refuse(400, "previous_job_id is of another model")
            if source.status != self.done:
                return self.refuse(409, "previous job is not completed")
        if not fine:
            return self.refuse(400, f"Invalid request: {wrong or sorted(asked)}")
        job = self.job(f"gen-vid-179560{len(self.submits):04}-abcdefghij", asked)
        return as_json(recorded("openrouter", "t2v all") | self.names(job, call), 202)

    def content(self, job: Job, call: Call) -> Response:
        if job.status != self.done:
            return as_json(recorded("openrouter", "content HTTP 409"), 409)
        if not self.original and not call.path.startswith("/store/"):
            return as_json(recorded("openrouter", "content HTTP 410"), 410)
        return Response(self.file, media_type="video/mp4")

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.original = False
        self.jobs[ref].raw["urls"] = [url]

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("openrouter", f"submit HTTP {status if status in ERRORS else 400}")
        metadata = {"reasons": [code]} if status == 403 and code else {}
        document["error"] |= {"code": status, "message": message, "metadata": metadata}
        return as_json(document, status)

    def names(self, job: Job, call: Call) -> dict[str, Any]:
        return {"id": job.ref, "status": job.status, "polling_url": f"/api/v1/videos/{job.ref}"}

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = recorded("openrouter", STATUSES.get(job.status, "poll pending"))
        shown |= self.names(job, call)
        if job.status == self.done:
            shown["unsigned_urls"] = [f"{call.origin}/api/v1/videos/{job.ref}/content?index=0"]
            if self.stored:
                shown |= {"urls": [f"{call.origin}/store/{job.ref}.mp4?sig=1"], "expires_at": EXPIRES_AT}
        if job.status == self.failed:
            shown["error"] = job.message
        return shown | job.raw


PATH = "/api/v1/videos"
VEO, SEEDANCE = "google/veo-3.1", "bytedance/seedance-2.0"
CAT = {"type": "image_url", "image_url": {"url": CAT_URL}}
USUAL = {"generate_audio": True, "duration": 6, "resolution": "720p"}
WIDE = {**USUAL, "aspect_ratio": "16:9"}


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {"model": VEO, "prompt": "żółw 🐢", **WIDE}, path=PATH),
    "everything": Wire(
        ask(
            seconds=8,
            aspect_ratio="9:16",
            resolution="2160p",
            seed=0,
            generate_audio=False,
            user="u1",
            n=2,
            metadata={"a": "b"},
            extra={"provider": {"options": {"google-vertex": {"parameters": {"negativePrompt": "x"}}}}, "duration": 60},
        ),
        {
            "model": VEO,
            "prompt": "a paper boat",
            "duration": 8,
            "resolution": "4K",
            "aspect_ratio": "9:16",
            "seed": 0,
            "generate_audio": False,
            "user": "u1",
            "callback_url": HOOK,
            "provider": {"options": {"google-vertex": {"parameters": {"negativePrompt": "x"}}}},
        },
        path=PATH,
        task={"callback_url": HOOK},
    ),
    "no callback without TLS": Wire(
        ask(),
        {"model": VEO, "prompt": "a paper boat", **WIDE},
        path=PATH,
        task={"callback_url": "http://gateway.example/hooks/x1"},
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
        {
            "model": VEO,
            "prompt": "a paper boat",
            **USUAL,
            "frame_images": [
                {**CAT, "frame_type": "first_frame"},
                {**picture("https://x.example/z.png"), "frame_type": "last_frame"},
            ],
        },
        path=PATH,
    ),
    "references": Wire(
        ask(
            reference_images=(Media(url="https://x.example/a.png"), Media(key="cat")),
            reference_video=Media(url="https://x.example/in.mp4"),
            seconds=5,
        ),
        {
            "model": SEEDANCE,
            "prompt": "a paper boat",
            **USUAL,
            "duration": 5,
            "input_references": [
                picture("https://x.example/a.png"),
                CAT,
                {"type": "video_url", "video_url": {"url": "https://x.example/in.mp4"}},
            ],
        },
        path=PATH,
        task={"model": SEEDANCE},
    ),
    "no text": Wire(
        ask("", first_frame=Media(url="https://x.example/a.png")),
        {
            "model": "minimax/hailuo-3",
            "generate_audio": True,
            "duration": 5,
            "resolution": "2K",
            "frame_images": [{**picture("https://x.example/a.png"), "frame_type": "first_frame"}],
        },
        path=PATH,
        task={"model": "minimax/hailuo-3"},
    ),
    "an edit": Wire(
        ask(operation=Operation.edit, source=Media(url="https://x.example/in.mp4")),
        {
            "model": "runway/aleph-2",
            "prompt": "a paper boat",
            "input_references": [{"type": "video_url", "video_url": {"url": "https://x.example/in.mp4"}}],
        },
        path=PATH,
        task={"model": "runway/aleph-2"},
    ),
    "a model in no list": Wire(
        ask(seconds=4, resolution="1440p", extra={"creativity": 2}),
        {"model": "maker/new-1", "prompt": "a paper boat", "duration": 4, "resolution": "2K", "creativity": 2},
        path=PATH,
        task={"model": "maker/new-1"},
    ),
}

WORDS = {
    "pending": Status.queued,
    "in_progress": Status.in_progress,
    "completed": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
    "expired": Status.failed,
    "dead": Status.failed,
}


def accepted(ref: Any) -> Any:
    return recorded("openrouter", "t2v all") | {"id": ref}


UPSTREAMS = (
    Upstream(
        "openrouter",
        OpenRouter,
        FakeOpenRouter,
        WIRES,
        WORDS,
        accepted,
        prefix="/api/v1",
        model=VEO,
        moderation=(403, "Your request was flagged", "violence"),
        credit=(402, "Insufficient credits", None),
        file_query="index=0",
        cancels=False,
        streams=False,
    ),
    Upstream(
        "openrouter_stored",
        OpenRouter,
        lambda: FakeOpenRouter(stored=True, original=False),
        {},
        WORDS,
        accepted,
        prefix="/api/v1",
        model=VEO,
        moderation=(403, "Your request was flagged", "violence"),
        credit=(402, "Insufficient credits", None),
        file_query="sig=1",
        cancels=False,
        streams=False,
    ),
)
