"""Lumenfall: its pages on videos, errors and idempotency; a cancel is answered as its third-party clients expect."""

import re
from typing import Any

from starlette.responses import Response

from app.providers.lumenfall import Lumenfall
from app.video import Media, Status
from fakes.openai import openai_accepted
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import BASIC, CAT_URL, EXTRA, FULL, HOOK, TEXT, UPLOADED, Upstream, Wire, ask

CREATED_AT = 1_702_345_678


class FakeLumenfall(Fake):
    """Refuses a key where files lie: that is another host of the vendor's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keys: dict[str, str] = {}

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["openai", "v1", "videos"]:
                return "submit", ""
            case "GET", ["openai", "v1", "videos", ref]:
                return "poll", ref
            case "DELETE", ["openai", "v1", "videos", ref]:
                return "cancel", ref
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return "authorization" not in call.headers if call.path.startswith("/files/") else super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.create(call)
            case "poll" if subject in self.jobs:
                return as_json(self.document(self.polled(self.jobs[subject]), call))
            case "cancel" if subject in self.jobs:
                del self.jobs[subject]
                return Response(status_code=204)
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return self.refuse(404, "Video not found", "NOT_FOUND")

    def create(self, call: Call) -> Response:
        asked = call.fields
        references = asked.get("input_reference", [])
        references = references if isinstance(references, list) else [references]
        hook = asked.get("webhook_url", "https://example.com")
        fine = (
            asked.get("model")
            and asked.get("prompt")
            and all(reference["image_url"].startswith(("https://", "data:image/")) for reference in references)
            and asked.get("input_video", "https://").startswith(("https://", "data:video/"))
            and re.fullmatch(r"https://[a-z][a-z0-9.-]*\.[a-z]+(:443|:8443)?(/.*)?", hook)
            and all(isinstance(value, str) for value in asked.get("metadata", {}).values())
            and len(asked.get("idempotency_key", "")) <= 256
        )
        if not fine:
            return self.refuse(400, "Malformed request", "INVALID_REQUEST")
        key = asked.get("idempotency_key", "")
        if key in self.keys:
            return as_json(self.short(self.jobs[self.keys[key]]), 200)
        job = self.job(f"video_abc{len(self.jobs) + 1}", asked)
        if key:
            self.keys[key] = job.ref
        return as_json(self.short(job), 202)

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["output"] = {"url": url}

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return as_json({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)

    def short(self, job: Job) -> dict[str, Any]:
        asked = {"seconds": job.asked.get("seconds", "5"), "size": job.asked.get("size", "1280x720")}
        shown = {"id": job.ref, "object": "video", "created_at": CREATED_AT, "status": job.status}
        return {**shown, "model": job.asked["model"], **asked}

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        done = job.status.lower() in (self.done, "succeeded")
        url = f"http://{call.headers['host']}/files/{job.ref}.mp4"
        return {
            **self.short(job),
            "completed_at": CREATED_AT + 60 if done else None,
            "expires_at": CREATED_AT + 3660 if done else None,
            "prompt": job.asked["prompt"],
            "output": {"url": url, "content_type": "video/mp4", "size_bytes": len(self.file)} if done else None,
            "error": {"code": job.code, "message": job.message} if job.status == self.failed else None,
            "metadata": {
                "model": job.asked["model"],
                "executed_model": f"fal/{job.asked['model']}",
                "provider": "fal",
                "provider_name": "fal",
                "cost" if done else "cost_estimate": 0.21,
                "cost_currency": "USD",
            },
            **job.raw,
        }


PATH = "/openai/v1/videos"

KEYED = {**BASIC, "idempotency_key": "attempt_1"}

WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {**KEYED, "prompt": "żółw 🐢"}, path=PATH),
    "text": Wire(TEXT, {**KEYED, "seconds": "8", "size": "1280x720"}, path=PATH),
    "everything": Wire(
        FULL,
        {
            **KEYED,
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
        path=PATH,
        task={"callback_url": HOOK},
    ),
    "upload": Wire(
        UPLOADED,
        {**KEYED, "seconds": "8", "input_reference": {"image_url": CAT_URL}},
        path=PATH,
    ),
    "video": Wire(
        ask(reference_video=Media(url="https://x.example/a.mp4")),
        {**KEYED, "input_video": "https://x.example/a.mp4"},
        path=PATH,
    ),
    "pictures": Wire(
        ask(first_frame=Media(key="cat"), reference_images=(Media(url="https://x.example/b.png"),)),
        {**KEYED, "input_reference": [{"image_url": CAT_URL}, {"image_url": "https://x.example/b.png"}]},
        path=PATH,
    ),
}

WORDS = {
    "queued": Status.queued,
    "in_progress": Status.in_progress,
    "in-progress": Status.in_progress,
    "completed": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "lumenfall",
        Lumenfall,
        FakeLumenfall,
        WIRES,
        WORDS,
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
