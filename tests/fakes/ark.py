"""Ark, as the recordings of its two runtimes show it (`tests/recordings/ark.json`): nulls are taken, other values of
fields that the model does not know are refused."""

from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import Response

from app.providers.ark import Ark
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, HOOK, Upstream, Wire, ask

MODEL = "dreamina-seedance-2-0-260128"
FIELDS = {"model", "content", "ratio", "resolution", "duration", "generate_audio", "safety_identifier", "callback_url"}
FIELDS |= {"watermark", "return_last_frame", "execution_expires_after", "priority", "tools"}
OF_2_5 = {"output_format", "omni_reference_task_type"}
ROLES = {"first_frame", "last_frame", "reference_image", "reference_video", "reference_audio", None}
STATUSES = {
    "queued": "poll_queued",
    "running": "poll_running",
    "succeeded": "poll_succeeded",
    "success": "poll_succeeded",
    "failed": "poll_failed_internal",
    "cancelled": "poll_cancelled",
    "expired": "poll_expired",
}
"""The recorded answer for each status word."""
ERRORS = {
    400: "error_400_invalid_parameter",
    401: "error_401_auth",
    403: "error_403_access_denied",
    404: "poll_404",
    409: "cancel_running",
    422: "error_422",
    429: "error_429_rpm",
    503: "error_503",
}
"""The recorded answer for each HTTP status; 500 for all else."""


class FakeArk(Fake):
    """Stops a task only while it is queued. Refuses a key where files lie: that is a bucket with signed addresses."""

    working = "running"
    done = "succeeded"

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["api", "v3", "contents", "generations", "tasks"]:
                return "submit", ""
            case "GET", ["api", "v3", "contents", "generations", "tasks", ref]:
                return "poll", ref
            case "GET", ["api", "v3", "contents", "generations", "tasks"]:
                return "list", ""
            case "DELETE", ["api", "v3", "contents", "generations", "tasks", ref]:
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
            case "list":
                return self.list(call)
            case "cancel" if subject in self.jobs:
                return self.cancel(self.jobs[subject])
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("ark", "poll_404"), 404)

    def list(self, call: Call) -> Response:
        query = {name: int(value) for name, value in parse_qsl(call.query)}
        size = query["page_size"]
        jobs = list(reversed(self.jobs.values()))[(query["page_num"] - 1) * size :][:size]
        rows = [self.document(job, call) for job in jobs]
        return as_json(recorded("ark", "list_plain") | {"total": len(self.jobs), "items": rows})

    def create(self, call: Call) -> Response:
        asked = {name: value for name, value in call.fields.items() if value is not None}
        content = asked.get("content") or []
        if not content or not asked.get("model"):
            return as_json(recorded("ark", "error_400_missing_parameter"), 400)
        known = FIELDS | (OF_2_5 if "2-5" in asked["model"] else set())
        unknown = set(asked) - known if "seedance" in asked["model"] else set()
        roles = [item.get("role") for item in content]
        mixed = {"first_frame", "last_frame"} & set(roles) and any("reference" in str(role) for role in roles)
        if unknown or mixed or not set(roles) <= ROLES:
            return self.invalid(min(unknown, default="content"))
        job = self.job(f"cgt-20261125100000-{len(self.submits):05}", asked)
        echoed = {name: asked[name] for name in ("safety_identifier",) if name in asked}
        return as_json(recorded("ark", "t2v_minimal") | {"id": job.ref} | echoed)

    def invalid(self, name: str) -> Response:
        document = recorded("ark", "error_400_invalid_parameter")
        error = document["error"]
        error |= {"message": error["message"].replace(error["param"], name), "param": name}
        return as_json(document, 400)

    def cancel(self, job: Job) -> Response:
        if job.status == self.working:
            return as_json(recorded("ark", "cancel_running"), 409)
        del self.jobs[job.ref]
        return as_json(recorded("ark", "cancel_queued_empty_object"))

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["content"] = {"video_url": url}

    def unauthorized(self) -> Response:
        return as_json(recorded("ark", "error_401_auth"), 401)

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("ark", ERRORS.get(status, "error_500"))
        document["error"] |= {"code": code or "Error", "message": message, "param": ""}
        return as_json(document, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = recorded("ark", STATUSES.get(job.status, "poll_unknown_status"))
        shown |= {"id": job.ref, "model": job.asked["model"], "status": job.status}
        if "content" in shown:
            shown["content"] = {"video_url": f"{call.origin}/files/{job.ref}.mp4"}
            shown |= {name: job.asked[name] for name in ("resolution", "ratio", "duration") if name in job.asked}
        if job.status == self.failed:
            shown["error"] = {"code": job.code, "message": job.message}
        return shown | job.raw


PATH = "/api/v3/contents/generations/tasks"
TEXT = {"type": "text", "text": "a paper boat"}
SHAPE = {"resolution": "720p", "duration": 5}
WIDE = {"ratio": "16:9", **SHAPE}


def picture(url: str, role: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, "role": role}


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}, "role": "reference_video"}


WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"model": MODEL, "content": [{"type": "text", "text": "żółw 🐢"}], **WIDE}, path=PATH
    ),
    "everything": Wire(
        ask(
            seconds=8,
            aspect_ratio="9:16",
            resolution="2160p",
            generate_audio=False,
            user="u1",
            n=2,
            extra={"watermark": True, "n": 4, "duration": 60},
        ),
        {
            "model": MODEL,
            "content": [TEXT],
            "ratio": "9:16",
            "resolution": "4k",
            "duration": 8,
            "generate_audio": False,
            "safety_identifier": "u1",
            "callback_url": HOOK,
            "watermark": True,
        },
        path=PATH,
        task={"callback_url": HOOK},
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
        {
            "model": MODEL,
            "content": [
                TEXT,
                picture(CAT_URL, "first_frame"),
                picture("https://x.example/z.png", "last_frame"),
            ],
            **SHAPE,
        },
        path=PATH,
    ),
    "references": Wire(
        ask(
            reference_images=(Media(url="https://x.example/a.png"), Media(key="cat")),
            reference_video=Media(url="https://x.example/in.mp4"),
        ),
        {
            "model": MODEL,
            "content": [
                TEXT,
                picture("https://x.example/a.png", "reference_image"),
                picture(CAT_URL, "reference_image"),
                video("https://x.example/in.mp4"),
            ],
            **SHAPE,
        },
        path=PATH,
    ),
    "edit": Wire(
        ask(operation=Operation.edit, source=Media(url="https://x.example/in.mp4")),
        {
            "model": "dreamina-seedance-2-5-260628",
            "content": [TEXT, video("https://x.example/in.mp4")],
            "ratio": "adaptive",
            "resolution": "720p",
            "duration": -1,
            "omni_reference_task_type": "edit",
        },
        path=PATH,
        task={"model": "dreamina-seedance-2-5-260628"},
    ),
}

WORDS = {
    "queued": Status.queued,
    "running": Status.in_progress,
    "succeeded": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
    "expired": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "ark",
        Ark,
        FakeArk,
        WIRES,
        WORDS,
        lambda ref: {"id": ref},
        prefix="/api/v3",
        model=MODEL,
        moderation=(400, "The input may contain sensitive information.", "InputTextSensitiveContentDetected"),
        credit=(403, "The account has overdue bills.", "AccountOverdueError"),
        streams=False,
        stopped_by=(200, 204),
    ),
)
