"""fal's queue, as its two clients read it (`tests/recordings/fal.json`): each answer has the keys that they require."""

import json
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

from app.providers.fal import Fal
from app.video import Media, Status
from fakes.recorded import recorded
from fakes.server import KEY, Answer, Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, Upstream, Wire, ask

MODEL = "fal-ai/kling-video/v3/pro"
ENDED = ("COMPLETED", "completed")
STATUSES = {
    "IN_QUEUE": "poll_queued",
    "IN_PROGRESS": "poll_running",
    "COMPLETED": "poll_completed",
    "completed": "poll_completed",
    "FAILED": "poll_completed_error",
}
"""The recorded answer for each status word; `FAILED` is a word of the fake alone."""


class FakeFal(Fake):
    """Answers 202 while a task waits or runs; a failed task is COMPLETED with an error. Refuses a key where files lie:
    that is another host."""

    waiting = "IN_QUEUE"
    working = "IN_PROGRESS"
    done = "COMPLETED"
    failed = "FAILED"

    def route(self, method: str, path: str) -> tuple[str, str]:
        found = segments(path)
        if found[0] == "files":
            return "content", found[-1]
        if found in (["storage", "upload", "initiate"], ["put"]):
            return "upload", method
        if "requests" not in found:
            return ("submit", "/".join(found)) if method == "POST" else ("other", path)
        at = found.index("requests")
        ref, rest = found[at + 1], found[at + 2 :]
        match method, rest:
            case "GET", ["status"]:
                return "poll", ref
            case "GET", []:
                return "result", ref
            case "PUT", ["cancel"]:
                return "cancel", ref
        return "other", path

    verbs = (*Fake.verbs, "result", "upload")

    def allowed(self, call: Call) -> bool:
        if call.path.startswith(("/files/", "/put")):
            return "authorization" not in call.headers
        return call.headers.get("authorization") == f"Key {self.key}"

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.create(subject, call)
            case "poll" if subject in self.jobs:
                return self.status(self.polled(self.jobs[subject]), call)
            case "result" if subject in self.jobs:
                return self.result(self.jobs[subject], call)
            case "cancel":
                return self.cancel(subject)
            case "upload" if subject == "POST":
                return self.initiate(call)
            case "upload" if subject == "PUT":
                return Response()
            case "content":
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("fal", "poll_404"), 404)

    def create(self, name: str, call: Call) -> Response:
        asked = call.json if isinstance(call.json, dict) else {}
        if not asked.get("prompt"):
            return as_json(recorded("fal", "submit_error_422_input"), 422)
        if set(parse_qs(call.query)) - {"fal_webhook"}:
            return self.refuse(400, "unknown query")  # no recorded answer
        parts = name.split("/")
        app = "/".join(parts[: 3 if parts[0] in ("workflows", "comfy") else 2])
        job = self.job(f"764cabcf-{len(self.jobs) + 1}", asked | {"app": app})
        return as_json(recorded("fal", "t2v") | urls(job, call))

    def status(self, job: Job, call: Call) -> Response:
        shown = recorded("fal", STATUSES.get(job.status, "poll_unknown_status")) | urls(job, call)
        if job.status == self.failed:
            shown |= {"error": job.message, "error_type": job.code or "internal_error"}
        else:
            shown["status"] = job.status
        return as_json(shown, 200 if shown["status"] in ENDED else 202)

    def result(self, job: Job, call: Call) -> Response:
        if job.status == self.failed:
            error = {"detail": job.message or "", "error_type": job.code or "internal_error"}
            return as_json(recorded("fal", "result_504_request_timeout", 1) | error, 504)
        if job.status not in ENDED:
            return as_json(recorded("fal", "result_early_400"), 400)
        found = recorded("fal", "result_success", 3)
        found["video"] |= {"url": f"{call.origin}/files/{job.ref}.mp4", "file_size": len(self.file)}
        return as_json(found | job.raw)

    def cancel(self, ref: str) -> Response:
        if ref not in self.jobs:
            return as_json(recorded("fal", "cancel_404"), 404)
        if self.jobs[ref].status in (*ENDED, self.failed):
            return as_json(recorded("fal", "cancel_400_already"), 400)
        ended = recorded("fal", "poll_completed_cancelled")
        self.fail(ref, ended["error_type"], ended["error"])
        return as_json(recorded("fal", "cancel_202"), 202)

    def initiate(self, call: Call) -> Response:
        if call.query != "storage_type=fal-cdn-v3" or set(call.fields) != {"content_type", "file_name"}:
            return as_json(recorded("fal", "submit_error_422_input"), 422)
        return as_json(recorded("fal", "js_submit_blob") | {"upload_url": f"{call.origin}/put?sig=1"})

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["video"] = {"url": url}

    def unauthorized(self) -> Response:
        return as_json(recorded("fal", "submit_error_401"), 401)

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        """A text, or what a model found wrong in a list."""
        if code is None:
            return as_json(recorded("fal", "poll_404") | {"detail": message}, status)
        document = recorded("fal", "submit_error_422_input")
        document["detail"][0] |= {"loc": ["body"], "msg": message, "type": code}
        return as_json(document, status)

    def refusal(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        return Answer(status, json.loads(bytes(self.refuse(status, message, code).body)), headers or {})


def urls(job: Job, call: Call) -> dict[str, str]:
    url = f"{call.origin}/{job.asked['app']}/requests/{job.ref}"
    return {"request_id": job.ref, "response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


KEYED = {"authorization": f"Key {KEY}"}
DEFAULTS = {"duration": "5", "aspect_ratio": "16:9"}
PATH = f"/{MODEL}/text-to-video"

WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {"prompt": "żółw 🐢", **DEFAULTS}, path=PATH, headers=KEYED),
    "text": Wire(
        ask(seconds=8, aspect_ratio="9:16", negative_prompt="blur", generate_audio=False, extra={"cfg_scale": 0.7}),
        {
            "prompt": "a paper boat",
            "duration": "8",
            "aspect_ratio": "9:16",
            "negative_prompt": "blur",
            "generate_audio": False,
            "cfg_scale": 0.7,
        },
        path=PATH,
        headers=KEYED,
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
        {
            "prompt": "a paper boat",
            "duration": "5",
            "start_image_url": CAT_URL,
            "end_image_url": "https://x.example/z.png",
        },
        path=f"/{MODEL}/image-to-video",
        headers=KEYED,
    ),
}

WORDS = {
    "IN_QUEUE": Status.queued,
    "IN_PROGRESS": Status.in_progress,
    "COMPLETED": Status.completed,
    "completed": Status.completed,
}


def accepted(ref: Any) -> Any:
    return {"status": "IN_QUEUE", "request_id": ref, "queue_position": 0}


UPSTREAMS = (
    Upstream(
        "fal",
        Fal,
        FakeFal,
        WIRES,
        WORDS,
        accepted,
        prefix="",
        model=MODEL,
        moderation=(422, "The content could not be processed", "content_policy_violation"),
        credit=(403, "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai.", None),
        stops=False,
        streams=False,
    ),
)
