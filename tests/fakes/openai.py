"""The OpenAI Videos API as its specification and SDKs have it, with the extensions that resellers add to it."""

from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import Response

from app.providers.openai import OpenAI
from app.video import Operation, Status
from fakes.recorded import recorded
from fakes.server import Answer, Call, Fake, Job, as_json, segments
from fakes.upstream import (
    BASIC,
    CAT_PART,
    EDIT_FILE,
    EXTRA,
    FORM,
    FULL,
    MADE,
    MIXED,
    PICTURE,
    PICTURES,
    TEXT,
    UPLOADED,
    VIDEO_PART,
    Upstream,
    Wire,
    ask,
)

STATUSES = {
    "in_progress": "retrieve in_progress",
    "completed": "retrieve completed",
    "failed": "retrieve failed",
    "cancelled": "retrieve cancelled",
    "expired": "retrieve expired",
}
"""The recorded answer for each status word; that of `queued` for all else."""
ERRORS = (400, 401, 403, 404, 409, 413, 422, 429, 500, 503)
"""Statuses of which an answer is recorded; that of 400 for all else."""


class FakeOpenAI(Fake):
    """`content_call=False` plays a reseller that only puts an address into the job, as `named` when it is done."""

    def __init__(self, *, content_call: bool = True, named: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.content_call = content_call
        self.named = named or {}
        self.most_listed = 100
        """Tasks in a page of the list, at most."""
        self.characters: dict[str, Call] = {}
        self.keys: dict[str, str] = {}
        self.fails_at: str | None = None
        """A prompt at which it breaks down."""

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path)[1:]:
            case "POST", ["videos", "characters"]:
                return "character", ""
            case "POST", ["videos"] | ["videos", "edits" | "extensions"] | ["videos", _, "remix"]:
                return "submit", ""
            case "GET", ["videos", ref]:
                return "poll", ref
            case "GET", ["videos"]:
                return "list", ""
            case "DELETE", ["videos", ref]:
                return "cancel", ref
            case "GET", ["videos", ref, "content"]:
                return "content", ref
        return "other", path

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        if verb == "submit":
            return self.create(call)
        if verb == "list":
            return self.list(call)
        if verb == "character":
            ref = f"char_{len(self.characters) + 1}"
            self.characters[ref] = call
            return as_json(recorded("openai", "character create") | {"id": ref, "name": call.fields["name"]})
        if verb == "other":  # no recorded answer
            models = {"object": "list", "data": [{"id": "sora-2", "object": "model", "owned_by": "openai"}]}
            return as_json(models) if subject == "/v1/models" else self.refuse(404, "Unknown path")
        job = self.jobs.get(subject)
        if job is None:
            return self.refuse(404, f"Video {subject[:80]} not found", "not_found")
        return {"poll": self.poll, "cancel": self.cancel, "content": self.content}[verb](job, call)

    def create(self, call: Call) -> Response:
        asked = call.fields
        if not asked.get("prompt"):
            return self.refuse(400, "Missing required parameter: 'prompt'.", "missing_required_parameter")
        if asked["prompt"] == self.fails_at:
            return self.refuse(500, "The server had an error")
        key = call.headers.get("idempotency-key") or asked.get("idempotency_key")
        ref = self.keys.get(key or "")
        if ref is None:
            ref = f"video_{len(self.jobs) + 1}"
            self.job(ref, asked)
            if key:
                self.keys[key] = ref
        return as_json(self.document(self.jobs[ref]))

    def list(self, call: Call) -> Response:
        query = dict(parse_qsl(call.query))
        refs = [ref for ref in reversed(self.jobs) if query.get("order") == "desc"]
        left = refs[refs.index(query["after"]) + 1 :] if query.get("after") in refs else refs
        page = left[: min(int(query["limit"]), self.most_listed)]
        document = recorded("openai", "list + paging", 1)
        ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
        rows = [self.document(self.jobs[ref]) for ref in page]
        return as_json(document | ends | {"data": rows, "has_more": len(left) > len(page)})

    def poll(self, job: Job, call: Call) -> Response:
        return as_json(self.document(self.polled(job)), headers={"openai-poll-after-ms": "2500"})

    def cancel(self, job: Job, call: Call) -> Response:
        del self.jobs[job.ref]
        return as_json(recorded("openai", "delete") | {"id": job.ref})

    def content(self, job: Job, call: Call) -> Response:
        if not self.content_call or job.status != self.done:
            return self.refuse(404, "The video is not ready", "not_ready")
        return Response(self.file, media_type="video/mp4")

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.script("content", Answer(302, headers={"location": url}))

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("openai", f"create HTTP {status if status in ERRORS else 400}")
        document["error"] |= {"message": message, "code": code}
        return as_json(document, status)

    def document(self, job: Job) -> dict[str, object]:
        shown: dict[str, Any] = recorded("openai", STATUSES.get(job.status, "retrieve queued"))
        shown |= {name: job.asked[name] for name in ("model", "prompt", "size") if name in job.asked}
        shown |= {"id": job.ref, "status": job.status, "seconds": str(job.asked.get("seconds", "4"))}
        if job.status == self.failed:
            shown["error"] = {"code": job.code, "message": job.message}
        named = self.named if job.status == self.done else {}
        return shown | named | job.raw


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

WIRES = {
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
            ("reference_video", VIDEO_PART),
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
    "edit of an upload": Wire(EDIT_FILE, form=[*FORM, ("video", VIDEO_PART)], path="/v1/videos/edits"),
    "extend": Wire(
        ask(operation=Operation.extend, seconds=12),
        {"prompt": "a paper boat", "video": {"id": "video_9/?"}, "seconds": "12"},
        path="/v1/videos/extensions",
        task=MADE,
    ),
    "key in the header": Wire(ask(), BASIC, headers={"idempotency-key": "attempt_1"}, config={"idempotency": "header"}),
    "key in the body": Wire(ask(), {**BASIC, "idempotency_key": "attempt_1"}, config={"idempotency": "body"}),
}


def openai_accepted(ref: Any) -> Any:
    return {"id": ref, "object": "video", "status": "queued", "progress": 0}


UPSTREAMS = (
    Upstream(
        "openai",
        OpenAI,
        FakeOpenAI,
        WIRES,
        OPENAI_WORDS,
        openai_accepted,
        idempotent=({"idempotency": "header"}, {"idempotency": "body"}),
    ),
)
