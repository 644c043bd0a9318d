"""Lumen: its video page; the envelope of HTTP errors, which the page does not show, is OpenAI's."""

from typing import Any

from starlette.responses import Response

from app.providers.lumen import Lumen
from app.video import Status
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import HOOK, LINK, MIXED, TEXT, Upstream, Wire, ask

CREATED = 1_700_000_000
MEDIA = ("image_url", "last_image_url", "reference_video_url", "webhook_url")
FIELDS = {
    *MEDIA,
    *("model", "prompt", "resolution", "aspect_ratio", "duration", "generate_audio"),
    *("reference_image_urls", "webhook_secret"),
}


class FakeLumen(Fake):
    """Refuses what the page does not have, and a key where files lie."""

    waiting = "processing"
    working = "processing"
    done = "succeeded"

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v1", "videos", "generations"]:
                return "submit", ""
            case "GET", ["v1", "videos", "generations", ref]:
                return "poll", ref
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
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return self.refuse(404, "task not found", "not_found")

    def create(self, call: Call) -> Response:
        asked = call.fields
        addresses = [asked[name] for name in MEDIA if name in asked] + asked.get("reference_image_urls", [])
        duration = asked.get("duration", 5)
        problems = {
            "unknown field": set(asked) <= FIELDS,
            "model and prompt are required": bool(asked.get("model") and asked.get("prompt")),
            "duration must be an integer of at least 4": type(duration) is int and duration >= 4,
            "resolution must be 480p, 720p or 1080p": asked.get("resolution", "720p") in ("480p", "720p", "1080p"),
            "media must be http(s) addresses": all(
                address.startswith(("http://", "https://")) for address in addresses
            ),
            "webhook_secret is required with webhook_url": ("webhook_url" in asked) <= ("webhook_secret" in asked),
        }
        for problem, fine in problems.items():
            if not fine:
                return self.refuse(400, problem, "invalid_request")
        job = self.job(f"v1a2b3{len(self.jobs) + 1:04}", asked)
        return as_json({"id": job.ref, "status": job.status, "created": CREATED})

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["data"] = [{"url": url}]

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return as_json({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": job.ref, "status": job.status}
        if job.status.lower() in (self.done, "completed"):
            shown["data"] = [{"url": f"http://{call.headers['host']}/files/{job.ref}.mp4"}]
        if job.status == self.failed and job.message is not None:
            shown["error"] = {"message": job.message}
        return shown | job.raw


PATH = "/v1/videos/generations"

REQUEST = {"model": "seedance-2", "prompt": "a paper boat"}

WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {**REQUEST, "prompt": "żółw 🐢"}, path=PATH),
    "size": Wire(TEXT, {**REQUEST, "duration": 8, "resolution": "720p", "aspect_ratio": "16:9"}, path=PATH),
    "everything": Wire(
        MIXED.model_copy(update={"seconds": 4.0, "generate_audio": False, "seed": 1, "user": "u1"}),
        {
            **REQUEST,
            "duration": 4,
            "generate_audio": False,
            "image_url": "https://gateway.example/cat",
            "last_image_url": "https://x.example/z.png",
            "reference_image_urls": ["https://x.example/b.png"],
            "reference_video_url": "https://gateway.example/clip",
            "webhook_url": HOOK,
            "webhook_secret": "s3cret",
        },
        path=PATH,
        task={"callback_url": HOOK, "callback_secret": "s3cret", **LINK},
    ),
    "no secret, no webhook": Wire(ask(), REQUEST, path=PATH, task={"callback_url": HOOK}),
}

WORDS = {
    "queued": Status.queued,
    "processing": Status.in_progress,
    "succeeded": Status.completed,
    "completed": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "lumen",
        Lumen,
        FakeLumen,
        WIRES,
        WORDS,
        lambda ref: {"id": ref, "status": "processing", "created": 1_700_000_000},
        prefix="/v1",
        model="seedance-2",
        moderation=(400, "content blocked", "invalid_request"),
        cancels=False,
        streams=False,
    ),
)
