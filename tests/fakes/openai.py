"""The OpenAI Videos API as its specification and SDKs have it, with the extensions that resellers add to it."""

from typing import Any

from starlette.responses import Response

from app.providers.openai import OpenAI
from app.video import Operation, Status
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

CREATED_AT = 1_795_255_200


class FakeOpenAI(Fake):
    """`content_call=False` plays a reseller that only puts an address into the job, as `named` when it is done."""

    def __init__(self, *, content_call: bool = True, named: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.content_call = content_call
        self.named = named or {}
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
            case "DELETE", ["videos", ref]:
                return "cancel", ref
            case "GET", ["videos", ref, "content"]:
                return "content", ref
        return "other", path

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        if verb == "submit":
            return self.create(call)
        if verb == "character":
            ref = f"char_{len(self.characters) + 1}"
            self.characters[ref] = call
            return as_json({"id": ref, "name": call.fields["name"], "created_at": CREATED_AT})
        if verb == "other":
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

    def poll(self, job: Job, call: Call) -> Response:
        return as_json(self.document(self.polled(job)), headers={"openai-poll-after-ms": "2500"})

    def cancel(self, job: Job, call: Call) -> Response:
        del self.jobs[job.ref]
        return as_json({"id": job.ref, "object": "video.deleted", "deleted": True})

    def content(self, job: Job, call: Call) -> Response:
        if not self.content_call or job.status != self.done:
            return self.refuse(404, "The video is not ready", "not_ready")
        return Response(self.file, media_type="video/mp4")

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.script("content", Answer(302, headers={"location": url}))

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return as_json({"error": error}, status)

    def document(self, job: Job) -> dict[str, object]:
        error = {"code": job.code, "message": job.message} if job.status == self.failed else None
        return {
            "id": job.ref,
            "object": "video",
            "model": job.asked.get("model", "sora-2"),
            "status": job.status,
            "progress": {self.waiting: 0, self.working: 33, self.done: 100}.get(job.status, 0),
            "created_at": CREATED_AT,
            "completed_at": CREATED_AT + 60 if job.status == self.done else None,
            "expires_at": None,
            "prompt": job.asked["prompt"],
            "size": job.asked.get("size", "720x1280"),
            "seconds": str(job.asked.get("seconds", "4")),
            "remixed_from_video_id": None,
            "error": error,
            **(self.named if job.status == self.done else {}),
            **job.raw,
        }


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
