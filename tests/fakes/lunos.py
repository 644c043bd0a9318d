"""Lunos: its video page, with the words of its client where the page has none."""

from typing import Any

from starlette.responses import Response

from app.providers.lunos import Lunos
from app.video import Status
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import FULL, HOOK, Upstream, Wire, ask

MODEL = "google/veo-3.0-generate-preview"
FIELDS = {"model", "prompt", "parameters", "response_format", "user", "appId"}
STARTED_MS = 1_703_123_456_789


class FakeLunos(Fake):
    """Refuses what the page does not have, and a key where files lie: the vendor's store is a public bucket."""

    waiting = "pending"
    working = "processing"

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v1", "video", "generations"]:
                return "submit", ""
            case "GET", ["v1", "video", "generations", ref]:
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
        return self.refuse(404, "Video operation not found")

    def create(self, call: Call) -> Response:
        asked = call.fields
        parameters = asked.get("parameters", {})
        unknown = (set(asked) - FIELDS) | (set(parameters) - {"aspectRatio", "negativePrompt"})
        if unknown or not asked.get("prompt") or not asked.get("model"):
            return self.refuse(400, f"invalid request: {', '.join(sorted(unknown)) or 'model and prompt are required'}")
        if asked["model"] != MODEL:
            return self.refuse(404, "Model not found")
        if parameters.get("aspectRatio", "16:9") != "16:9" or asked.get("response_format", "mp4") != "mp4":
            return self.refuse(400, "Only 16:9 and mp4 are supported")
        job = self.job(f"video-op:user123:{STARTED_MS + len(self.jobs)}", asked)
        operation = f"operations/veo-3.0-generate-preview/{len(self.jobs)}"
        return as_json({"id": job.ref, "operation_name": operation, "status": job.status})

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["video_url"] = url

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return as_json({"error": message}, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": job.ref, "status": job.status}
        if job.status.lower() in (self.done, "succeeded"):
            shown["video_url"] = f"http://{call.headers['host']}/files/{job.ref}.mp4"
        if job.status == self.failed and job.message is not None:
            shown["error"] = job.message
        return shown | job.raw


PATH = "/v1/video/generations"

REQUEST = {"model": MODEL, "prompt": "a paper boat", "parameters": {}, "response_format": "mp4"}

WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {**REQUEST, "prompt": "żółw 🐢"}, path=PATH),
    "everything": Wire(
        FULL,
        {**REQUEST, "parameters": {"aspectRatio": "16:9", "negativePrompt": "blur"}, "user": "u1"},
        path=PATH,
        headers={"x-app-id": "my-app"},
        config={"app_id": "my-app"},
        task={"callback_url": HOOK, "callback_secret": "s3cret"},
    ),
}

WORDS = {
    "pending": Status.queued,
    "processing": Status.in_progress,
    "completed": Status.completed,
    "succeeded": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "lunos",
        Lunos,
        FakeLunos,
        WIRES,
        WORDS,
        lambda ref: {"id": ref, "operation_name": "operations/1", "status": "pending"},
        prefix="/v1",
        model=MODEL,
        cancels=False,
    ),
)
