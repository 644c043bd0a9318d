"""gpt.ge's Luma pages: generate, extend, query; what the vendor does not document is as its siblings have it."""

from typing import Any

from starlette.responses import Response

from app.providers.gptge import GptGe
from app.video import Media, Operation, Status
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, FRAMES, HOOK, LUMA_WORDS, MADE, Upstream, Wire, ask, luma_accepted

CREATED_AT = "2024-12-24T18:01:25.319129Z"
FIELDS = {"user_prompt", "expand_prompt", "image_url", "image_end_url", "notify_hook", "loop", "aspect_ratio"}
NOT_TO_EXTEND = {"loop", "aspect_ratio"}


class FakeGptGe(Fake):
    """A field that the vendor's page does not have is refused, which the vendor itself hardly does."""

    waiting = "pending"
    working = "processing"

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["luma", "generations"]:
                return "submit", ""
            case "POST", ["luma", "generations", ref, "extend"]:
                return "submit", ref
            case "GET", ["luma", "generations", ref]:
                return "poll", ref
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return call.path.startswith("/files/") or super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.create(subject, call)
            case "poll" if subject in self.jobs:
                return as_json(self.document(self.polled(self.jobs[subject]), call))
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return self.refuse(404, "task_not_exist", "task_not_exist")

    def create(self, source: str, call: Call) -> Response:
        asked = call.fields
        unknown = set(asked) - (FIELDS - NOT_TO_EXTEND if source else FIELDS)
        if unknown or not asked.get("user_prompt"):
            return self.refuse(400, f"invalid field: {', '.join(sorted(unknown)) or 'user_prompt'}", "invalid_request")
        job = self.job(f"e70fdf3c-ce95-4dd1-a967-{len(self.jobs) + 1:012}", asked)
        request = {"prompt": asked["user_prompt"], "aspect_ratio": asked.get("aspect_ratio", "16:9")}
        return as_json({"id": job.ref, "state": job.status, "created_at": CREATED_AT, "request": request})

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw = {"video": {"url": url, "download_url": url}, "video_raw": None}

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return as_json({"code": code or "error", "message": message, "data": None}, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        url = f"http://{call.headers['host']}/files/{job.ref}.mp4"
        done = job.status.lower() in (self.done, "success")
        size = {"width": 1360, "height": 752}
        return {
            "id": job.ref,
            "state": job.status,
            "created_at": CREATED_AT,
            "failure_reason": job.message,
            "request": {"prompt": job.asked["user_prompt"], "aspect_ratio": job.asked.get("aspect_ratio", "16:9")},
            "video": {"url": url, **size, "download_url": url} if done else None,
            "video_raw": {"url": url, **size, "duration": 5.04, "media_type": "video"} if done else None,
            "thumbnail": None,
            "last_frame": None,
            **job.raw,
        }


WIRES = {
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

UPSTREAMS = (
    Upstream(
        "gptge",
        GptGe,
        FakeGptGe,
        WIRES,
        {**LUMA_WORDS, "SUCCESS": Status.completed, "FAILURE": Status.failed},
        luma_accepted,
        prefix="",
        model="luma",
        credit=(403, "user quota is not enough", "insufficient_user_quota"),
        cancels=False,
        streams=False,
    ),
)
