"""DashScope, as the recordings of its two clients show it (`tests/recordings/dashscope.json`): a submit has to ask for
a task, in the shape of the model's generation."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import Response

from app.providers.dashscope import DashScope
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, Upstream, Wire, ask

MODEL = "wan2.7-t2v"
OLD = ("wanx", "wan2.1", "wan2.2", "wan2.5", "wan2.6")
OLD_MEDIA = {"img_url", "first_frame_url", "last_frame_url", "reference_urls", "reference_video_urls"}
TYPES = {"first_frame", "last_frame", "reference_image", "reference_video", "reference_audio", "video", "first_clip"}
TYPES |= {"driving_audio", "file", "link"}
REFERENCES = {"reference_image", "reference_video"}
STATUSES = {
    "PENDING": "poll_pending",
    "SUSPENDED": "poll_suspended",
    "RUNNING": "poll_running",
    "SUCCEEDED": "poll_succeeded",
    "FAILED": "poll_failed_internal",
    "CANCELED": "poll_canceled",
    "UNKNOWN": "poll_unknown",
}
"""The recorded answer for each status word."""
ERRORS = {
    400: "error_400_param",
    401: "error_401",
    403: "error_403_unpurchased",
    404: "error_404_model",
    413: "v2_error_413_RequestTooLarge",
    429: "error_429",
    503: "error_503",
    504: "error_504",
}
"""The recorded answer for each HTTP status; 500 for all else."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FakeDashScope(Fake):
    """Answers 200 for a task that it does not have, and stops a task only while it waits. Refuses a key where files
    lie: that is a bucket with signed addresses."""

    waiting = "PENDING"
    working = "RUNNING"
    done = "SUCCEEDED"
    failed = "FAILED"
    new_list = False
    """True: rows of the list of tasks as the vendor's newer client reads them."""
    most_rows = 100
    """Most tasks of a page of the list, whatever size it is asked for in."""
    has_total = True

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["api", "v1", "services", "aigc", kind, "video-synthesis"]:
                return "submit", kind
            case "GET", ["api", "v1", "tasks", ref]:
                return "poll", ref
            case "GET", ["api", "v1", "tasks"]:
                return "list", ""
            case "POST", ["api", "v1", "tasks", ref, "cancel"]:
                return "cancel", ref
            case "GET", ["api", "v1", "uploads"]:
                return "upload", ""
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    verbs = (*Fake.verbs, "upload")

    def allowed(self, call: Call) -> bool:
        return "authorization" not in call.headers if call.path.startswith("/files/") else super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.create(subject, call)
            case "poll" if subject in self.jobs:
                return as_json(self.document(self.polled(self.jobs[subject]), call))
            case "poll":
                return as_json(self.shown("poll_unknown", task_id=subject))
            case "list":
                return self.list(call)
            case "cancel" if subject in self.jobs:
                return self.cancel(self.jobs[subject])
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return self.refuse(404, "not found", "NotFound")  # no recorded answer

    def create(self, kind: str, call: Call) -> Response:
        if call.headers.get("x-dashscope-async") != "enable":
            return as_json(recorded("dashscope", "error_403_access"), 403)
        asked = call.json if isinstance(call.json, dict) else {}
        model, given = str(asked.get("model")), asked.get("input") or {}
        if not model.startswith(("wan", "happyhorse")):
            return as_json(recorded("dashscope", "error_404_model"), 404)
        resolved = call.headers.get("x-dashscope-ossresourceresolve") == "enable"
        if '"oss://' in json.dumps(given) and not resolved:
            return as_json(recorded("dashscope", "error_400_url"), 400)
        if not (given.get("prompt") or given.keys() & (OLD_MEDIA | {"media"})) or self.is_mistaken(kind, asked):
            return as_json(recorded("dashscope", "error_400_param"), 400)
        job = self.job(f"0385dc79-5ff8-4d82-bcb6-{len(self.submits):012}", asked)
        return as_json(self.shown("t2v_minimal", task_id=job.ref))

    def is_mistaken(self, kind: str, asked: dict[str, Any]) -> bool:
        """True for a request in the shape of another generation."""
        model, given, parameters = asked["model"], asked["input"], asked.get("parameters") or {}
        if (kind == "image2video") != ("kf2v" in model):
            return True
        if model.startswith(OLD):
            sized = "t2v" in model or "r2v" in model
            shape = {"resolution", "ratio"} if sized else {"size", "ratio"}
            return "media" in given or bool(parameters.keys() & shape) or "x" in str(parameters.get("size"))
        media = given.get("media") or []
        named = all(item.get("type") in TYPES and item.get("url") for item in media)
        upper = str(parameters.get("resolution", "720P")).endswith("P")
        kinds = {item.get("type") for item in media}
        mixed = model.startswith("wan3") and {"first_frame", "last_frame"} & kinds and REFERENCES & kinds
        return bool(given.keys() & OLD_MEDIA or mixed) or "size" in parameters or not named or not upper

    def list(self, call: Call) -> Response:
        query = {name: int(value) for name, value in parse_qsl(call.query)}
        size, number = min(query["page_size"], self.most_rows), query["page_no"]
        jobs = list(reversed(self.jobs.values()))[(number - 1) * size :][:size]
        page = {"total": len(self.jobs) if self.has_total else None, "page_no": number, "page_size": size}
        if self.new_list:
            rows = [self.new_row(job) for job in jobs]
            return as_json(recorded("dashscope", "v2_list_tasks_key") | page | {"tasks": rows})
        document = recorded("dashscope", "list_filters")
        (row,) = document["data"]
        rows = [row | {"task_id": job.ref, "status": job.status, "gmt_create": created_ms(job)} for job in jobs]
        return as_json(document | page | {"data": rows})

    def new_row(self, job: Job) -> dict[str, Any]:
        """A row with the time that a poll shows, which is not recorded of a list."""
        (row,) = recorded("dashscope", "v2_list_tasks_key")["tasks"]
        at = EPOCH + timedelta(milliseconds=created_ms(job), hours=8)
        time = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}"
        named: dict[str, Any] = {"task_id": job.ref, "task_status": job.status, "submit_time": time}
        return {**row, **named}

    def cancel(self, job: Job) -> Response:
        if job.status not in ("PENDING", "SUSPENDED"):
            return as_json(recorded("dashscope", "cancel_running"), 400)
        self.show(job.ref, "CANCELED")
        return as_json(recorded("dashscope", "cancel_pending"))

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["video_url"] = url

    def unauthorized(self) -> Response:
        return as_json(recorded("dashscope", "error_401"), 401)

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("dashscope", ERRORS.get(status, "error_500"))
        return as_json(document | {"message": message, **({} if code is None else {"code": code})}, status)

    def shown(self, case: str, **output: Any) -> dict[str, Any]:
        """A recorded answer with other values in its `output`."""
        document: dict[str, Any] = recorded("dashscope", case)
        document["output"] |= output
        return document

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        output: dict[str, Any] = {"task_id": job.ref, "task_status": job.status}
        if job.status == self.failed:
            output |= {"code": job.code, "message": job.message}
        if job.status == self.done:
            output |= {"video_url": f"{call.origin}/files/{job.ref}.mp4?Expires=1795687323"}
            output["orig_prompt"] = job.asked["input"].get("prompt")
        output |= {name: value for name, value in job.raw.items() if name != "created_ms"}
        return self.shown(STATUSES.get(job.status, "poll_new_word"), **output)


def created_ms(job: Job) -> int:
    """The time at which a task was made, which a test may set."""
    return int(job.raw.get("created_ms", recorded("dashscope", "list_filters")["data"][0]["gmt_create"]))


PATH = "/api/v1/services/aigc/video-generation/video-synthesis"
ASYNC = {"x-dashscope-async": "enable"}
SHAPE = {"resolution": "720P", "duration": 5}
OURS = "https://gateway.example/files/boat.mp4"


def wire(model: str, given: dict[str, Any], parameters: dict[str, Any], **fields: Any) -> Wire:
    body = {"model": model, "input": {"prompt": "a paper boat", **given}, "parameters": parameters}
    values = {"path": PATH, "headers": ASYNC, "task": {"model": model}, **fields}
    return Wire(values.pop("request", ask()), body, **values)


def media(**urls: str | list[str]) -> dict[str, Any]:
    pairs = [(kind, url) for kind, some in urls.items() for url in ([some] if isinstance(some, str) else some)]
    return {"media": [{"type": kind, "url": url} for kind, url in pairs]}


WIRES = {
    "prompt only": wire(MODEL, {"prompt": "żółw 🐢"}, SHAPE, request=ask("żółw 🐢")),
    "everything": wire(
        "wan3.0-video",
        {
            **media(reference_image=["https://x.example/a.png", CAT_URL], reference_video="https://x.example/in.mp4"),
            "audio_url": "https://x.example/a.mp3",
        },
        {
            "resolution": "1080P",
            "ratio": "9:16",
            "duration": 8,
            "seed": 7,
            "audio": False,
            "prompt_extend": True,
            "watermark": True,
        },
        request=ask(
            seconds=8,
            aspect_ratio="9:16",
            resolution="1080p",
            seed=7,
            generate_audio=False,
            expand_prompt=True,
            user="u1",
            n=2,
            reference_images=(Media(url="https://x.example/a.png"), Media(key="cat")),
            reference_video=Media(url="https://x.example/in.mp4"),
            extra={"watermark": True, "n": 4, "duration": 60, "audio_url": "https://x.example/a.mp3", "prompt": "x"},
        ),
    ),
    "size in pixels": wire(
        "wan2.6-t2v",
        {"negative_prompt": "blur"},
        {"size": "1088*832", "duration": 10, "shot_type": "multi"},
        request=ask(seconds=10, aspect_ratio="4:3", negative_prompt="blur", extra={"shot_type": "multi"}),
    ),
    "first frame of an older model": wire(
        "wan2.6-i2v", {"img_url": CAT_URL}, SHAPE, request=ask(first_frame=Media(key="cat"))
    ),
    "references of an older model": wire(
        "wan2.6-r2v",
        {"reference_urls": ["https://x.example/a.png", "https://x.example/in.mp4"]},
        {"size": "1280*720", "duration": 5},
        request=ask(
            reference_images=(Media(url="https://x.example/a.png"),),
            reference_video=Media(url="https://x.example/in.mp4"),
        ),
    ),
    "first and last frame of an older model": wire(
        "wan2.2-kf2v-flash",
        {"first_frame_url": CAT_URL, "last_frame_url": "https://x.example/z.png"},
        {"resolution": "720P"},
        request=ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
        path="/api/v1/services/aigc/image2video/video-synthesis",
    ),
    "first and last frame": wire(
        "wan2.7-i2v",
        media(first_frame=CAT_URL, last_frame="https://x.example/z.png"),
        SHAPE,
        request=ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
    ),
    "media of the caller's own": wire(
        "wan2.7-i2v",
        media(first_frame="https://x.example/a.png", driving_audio="oss://dashscope-instant/a.mp3"),
        SHAPE,
        request=ask(
            first_frame=Media(url="https://x.example/a.png"),
            extra={"media": [{"type": "driving_audio", "url": "oss://dashscope-instant/a.mp3"}]},
        ),
        headers={**ASYNC, "x-dashscope-ossresourceresolve": "enable"},
    ),
    "edit": wire(
        "happyhorse-1.0-video-edit",
        media(video="https://x.example/in.mp4", reference_image=CAT_URL),
        {"resolution": "720P", "audio_setting": "origin"},
        request=ask(
            operation=Operation.edit,
            source=Media(url="https://x.example/in.mp4"),
            reference_images=(Media(key="cat"),),
            extra={"audio_setting": "origin"},
        ),
    ),
    "edit by an all-in-one model": wire(
        "wan3.0-video",
        media(reference_video=OURS),
        {"resolution": "720P", "duration": -1},
        request=ask(operation=Operation.edit, source=Media(video_id="video_1")),
        task={"model": "wan3.0-video", "link": lambda medium: OURS},
    ),
    "extension": wire(
        "wan2.7-i2v",
        media(first_clip=OURS),
        {"resolution": "720P", "duration": 9},
        request=ask(operation=Operation.extend, seconds=4, source=Media(video_id="video_1", seconds=5.04)),
        task={"model": "wan2.7-i2v", "link": lambda medium: OURS},
    ),
    "workspace": wire(
        MODEL,
        {},
        SHAPE,
        config={"workspace": "ws-1"},
        headers={**ASYNC, "x-dashscope-workspace": "ws-1"},
    ),
}

WORDS = {
    "PENDING": Status.queued,
    "SUSPENDED": Status.queued,
    "RUNNING": Status.in_progress,
    "SUCCEEDED": Status.completed,
    "FAILED": Status.failed,
    "CANCELED": Status.failed,
}


def accepted(ref: Any) -> Any:
    document = recorded("dashscope", "t2v_minimal")
    document["output"]["task_id"] = ref
    return document


UPSTREAMS = (
    Upstream(
        "dashscope",
        DashScope,
        FakeDashScope,
        WIRES,
        WORDS,
        accepted,
        prefix="",
        model=MODEL,
        moderation=(400, "Input data may contain inappropriate content.", "DataInspectionFailed"),
        credit=(400, "Access denied, please make sure your account is in good standing.", "Arrearage"),
        streams=False,
        file_query="Expires=1795687323",
    ),
)
