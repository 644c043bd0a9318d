"""MiniMax with both versions of its API, as recordings of its clients have it (`tests/recordings/minimax.json`). The
answers to a cancel and of the list follow the vendor's pages."""

from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

from app.providers.minimax import MiniMax
from app.video import Media, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, HOOK, Upstream, Wire, ask

STATUSES = {
    "queued": ("ai-sdk t2v all options", 1),
    "running": ("ai-sdk t2v all options", 2),
    "succeeded": ("ai-sdk t2v all options", 3),
    "failed": ("ai-sdk status failed", 1),
    "cancelled": ("ai-sdk status cancelled", 1),
    "expired": ("ai-sdk status expired", 1),
}
"""Case and number of the recorded answer for each status word of version 2."""
ERRORS = (400, 401, 402, 422, 429)
"""HTTP statuses of recorded errors of version 2; one of 500 for all else."""
FIELDS = {"model", "content", "resolution", "duration", "ratio", "callback_url", "aigc_watermark"}
FRAMES = {"first_frame", "last_frame"}
REFERENCES = {"reference_image", "reference_video", "reference_audio"}
RATIOS = {"adaptive", "21:9", "16:9", "4:3", "1:1", "3:4", "9:16"}
LIMITS: dict[str, tuple[int, tuple[str, ...], set[str]]] = {
    "MiniMax-H3": (4, ("768P", "2K"), FRAMES | REFERENCES),
    "MiniMax-H3-Max": (5, ("480P", "768P"), FRAMES),
}
"""Shortest length, resolutions and roles by model."""
FIRST_FIELDS = {"model", "prompt", "prompt_optimizer", "fast_pretreatment", "duration", "resolution", "callback_url"}
FIRST_FIELDS |= {"first_frame_image", "last_frame_image", "subject_reference", "aigc_watermark"}
HAILUO_SIZES = (("512P", 6), ("512P", 10), ("768P", 6), ("768P", 10), ("1080P", 6))
NUMBERS = {400: 2013, 401: 1004, 402: 1008, 422: 1026, 429: 1002, 500: 1000}
"""Number of version 1 for an HTTP status of version 2."""
LONGEST = 15


class FakeMiniMax(Fake):
    """Answers each path as its version does. Stops a task only while it is queued. Refuses a key where files lie: that
    is another host."""

    working = "running"
    done = "succeeded"
    verbs = (*Fake.verbs, "file")
    most_rows = 100
    """Most tasks of a page of the list, whatever size it is asked for in."""
    has_total = True

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v1" | "v2", "video_generation"]:
                return "submit", ""
            case "GET", ["v2", "query", "video_generation", ref]:
                return "poll", ref
            case "GET", ["v1", "query", "video_generation"]:
                return "poll", ""
            case "GET", ["v2", "query", "video_generation"]:
                return "list", ""
            case "DELETE", ["v2", "video_generation", ref]:
                return "cancel", ref
            case "GET", ["v1", "files", "retrieve"]:
                return "file", ""
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return "authorization" not in call.headers if call.path.startswith("/files/") else super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        if call.path.startswith("/v1/"):
            return self.first(verb, call)
        match verb:
            case "submit":
                return self.create(call)
            case "poll" if subject in self.jobs:
                return as_json({"task": self.document(self.polled(self.jobs[subject]), call)})
            case "list":
                return self.list(call)
            case "cancel" if subject in self.jobs:
                return self.cancel(self.jobs[subject])
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("minimax", "ai-sdk submit HTTP 500"), 500)  # the later of two: an unknown id

    def create(self, call: Call) -> Response:
        asked = call.fields
        content = asked.get("content") or []
        texts = [item["text"] for item in content if item.get("type") == "text"]
        if len(texts) != 1 or not texts[0]:
            return as_json(recorded("minimax", "ai-sdk submit HTTP 400"), 400)
        roles = {item["role"] for item in content if "role" in item}
        shortest, resolutions, known = LIMITS.get(asked["model"], (4, tuple(asked.get("resolution", ())), FRAMES))
        lacks_ratio = not roles and asked.get("ratio", "adaptive") == "adaptive"
        fine = (
            not set(asked) - FIELDS
            and asked.get("resolution") in resolutions
            and isinstance(asked.get("duration"), int)
            and shortest <= asked["duration"] <= LONGEST
            and asked.get("ratio", "adaptive") in RATIOS
            and roles <= known
            and not (roles & FRAMES and roles & REFERENCES)
            and not ("last_frame" in roles and "first_frame" not in roles)
        )
        if not fine or lacks_ratio:
            return self.invalid()
        job = self.job(f"4240135792468{len(self.submits):02}", asked)
        return as_json(recorded("minimax", "ai-sdk t2v minimal") | {"task_id": job.ref})

    def invalid(self) -> Response:
        return FakeMiniMax.refuse(self, 400, "invalid params", "2013")

    def cancel(self, job: Job) -> Response:
        if job.status in (self.working, "cancelled"):
            return FakeMiniMax.refuse(self, 400, f"task is {job.status} and cannot be cancelled", "2013")
        action = "cancelled" if job.status == self.waiting else "deleted"
        if action == "deleted":
            del self.jobs[job.ref]
        else:
            self.show(job.ref, action)
        return as_json({"task_id": job.ref, "action": action, "status": action})

    def list(self, call: Call) -> Response:
        query = {name: int(values[0]) for name, values in parse_qs(call.query).items()}
        size = min(query["page_size"], self.most_rows)
        jobs = list(reversed(self.jobs.values()))[(query["page_num"] - 1) * size :][:size]
        items = [self.document(job, call) for job in jobs]
        return as_json({"items": items, **({"total": len(self.jobs)} if self.has_total else {})})

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["content"] = {"url": url}

    def unauthorized(self) -> Response:
        return as_json(recorded("minimax", "ai-sdk submit HTTP 401"), 401)

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("minimax", f"ai-sdk submit HTTP {status if status in ERRORS else 500}")
        number = f" ({code})" if code is not None and code.isdecimal() else ""
        document["error"] |= {"message": message + number, "http_code": str(status)}
        return as_json(document, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        case = STATUSES.get(job.status, ("ai-sdk status unknown word", 1))
        shown: dict[str, Any] = recorded("minimax", *case)["task"]
        shown |= {"id": job.ref, "status": job.status}
        shown |= {name: job.asked[name] for name in ("model", "resolution", "ratio", "duration") if name in job.asked}
        if job.status == self.done:
            shown["content"] = {"url": f"{call.origin}/files/{job.ref}.mp4?Expires=1"}
        if job.status == self.failed:
            shown["error"] = {"code": job.code, "message": job.message}
        return shown | job.raw

    # Version 1, which answers 200 to everything

    def first(self, verb: str, call: Call) -> Response:
        values = {name: values[0] for name, values in parse_qs(call.query).items()}
        job = self.jobs.get(values.get("task_id", "") or values.get("file_id", "").removeprefix("9"))
        if verb == "submit":
            return self.create_first(call)
        if job is None:
            return self.said(2013, "invalid params")
        if verb == "poll":
            return as_json(self.first_document(self.polled(job)))
        document = recorded("minimax", "v1 poll Success -> file", 1)
        url = job.raw.get("download_url", f"{call.origin}/files/{job.ref}.mp4?Expires=1")
        document["file"] |= {"file_id": int(f"9{job.ref}"), "download_url": url}
        return as_json(document)

    def create_first(self, call: Call) -> Response:
        asked = call.fields
        model = asked.get("model", "")
        is_sized = model.startswith("MiniMax-Hailuo")
        fine = (
            not set(asked) - FIRST_FIELDS
            and (not is_sized or (asked.get("resolution", "768P"), asked.get("duration", 6)) in HAILUO_SIZES)
            and ("first_frame_image" in asked or not model.startswith(("I2V", "MiniMax-Hailuo-2.3-Fast")))
            and ("first_frame_image" in asked or "last_frame_image" not in asked)
            and ("subject_reference" in asked) == (model == "S2V-01")
        )
        if not fine:
            return self.said(2013, "invalid params")
        job = self.job(f"1069161122120{len(self.submits):02}", asked)
        return as_json(recorded("minimax", "v1 t2v Hailuo-02") | {"task_id": job.ref})

    def said(self, number: int, message: str) -> Response:
        document = recorded("minimax", "v1 submit HTTP 200 base_resp 2013")
        document["base_resp"] = {"status_code": number, "status_msg": message}
        return as_json(document)

    def first_document(self, job: Job) -> dict[str, Any]:
        case = "v1 poll Success -> file" if job.status == FakeHailuo.done else "v1 poll Processing"
        shown: dict[str, Any] = recorded("minimax", case)
        shown |= {"task_id": job.ref, "status": job.status}
        if "file_id" in shown:
            shown["file_id"] = f"9{job.ref}"
        if job.status == FakeHailuo.failed and job.message is not None:
            shown["base_resp"] = {"status_code": job.code or 1000, "status_msg": job.message}
        return shown | job.raw


class FakeHailuo(FakeMiniMax):
    """The same with the words of version 1."""

    waiting = "Preparing"
    working = "Processing"
    done = "Success"
    failed = "Fail"

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["download_url"] = url

    def unauthorized(self) -> Response:
        return as_json(recorded("minimax", "v1 submit HTTP 200 base_resp 1004"))

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return self.said(NUMBERS[status], message) if status in NUMBERS else super().refuse(status, message, code)


PATH = "/v2/video_generation"
TEXT = {"type": "text", "text": "a paper boat"}
SHAPE = {"resolution": "768P", "duration": 5}
WIDE = {**SHAPE, "ratio": "16:9"}
OWN = {**SHAPE, "ratio": "adaptive"}
H3 = "MiniMax-H3"


def picture(url: str, role: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, "role": role}


WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"model": H3, "content": [{"type": "text", "text": "żółw 🐢"}], **WIDE}, path=PATH
    ),
    "everything": Wire(
        ask(
            seconds=8,
            aspect_ratio="9:16",
            resolution="1440p",
            user="u1",
            n=2,
            extra={"aigc_watermark": True, "n": 4, "duration": 60},
        ),
        {
            "model": H3,
            "content": [TEXT],
            "resolution": "2K",
            "duration": 8,
            "ratio": "9:16",
            "callback_url": HOOK,
            "aigc_watermark": True,
        },
        path=PATH,
        task={"callback_url": HOOK},
    ),
    "720p": Wire(
        ask(size="720x1280", aspect_ratio="9:16", resolution="720p"),
        {"model": H3, "content": [TEXT], **SHAPE, "ratio": "9:16"},
        path=PATH,
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
        {
            "model": H3,
            "content": [TEXT, picture(CAT_URL, "first_frame"), picture("https://x.example/z.png", "last_frame")],
            **OWN,
        },
        path=PATH,
    ),
    "references": Wire(
        ask(
            reference_images=(Media(url="https://x.example/a.png"), Media(key="cat")),
            reference_video=Media(url="https://x.example/in.mp4"),
        ),
        {
            "model": H3,
            "content": [
                TEXT,
                picture("https://x.example/a.png", "reference_image"),
                picture(CAT_URL, "reference_image"),
                {"type": "video_url", "video_url": {"url": "https://x.example/in.mp4"}, "role": "reference_video"},
            ],
            **OWN,
        },
        path=PATH,
    ),
}
FIRST_PATH = "/v1/video_generation"
HAILUO = "MiniMax-Hailuo-02"
FIRST_WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"model": HAILUO, "prompt": "żółw 🐢", "duration": 6, "resolution": "768P"}, path=FIRST_PATH
    ),
    "everything": Wire(
        ask(
            seconds=10,
            aspect_ratio="16:9",
            resolution="720p",
            expand_prompt=False,
            user="u1",
            n=2,
            extra={"fast_pretreatment": True, "duration": 60, "n": 4},
        ),
        {
            "model": HAILUO,
            "prompt": "a paper boat",
            "duration": 10,
            "resolution": "768P",
            "prompt_optimizer": False,
            "callback_url": HOOK,
            "fast_pretreatment": True,
        },
        path=FIRST_PATH,
        task={"callback_url": HOOK},
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png"), resolution="1080p"),
        {
            "model": HAILUO,
            "prompt": "a paper boat",
            "duration": 6,
            "resolution": "1080P",
            "first_frame_image": CAT_URL,
            "last_frame_image": "https://x.example/z.png",
        },
        path=FIRST_PATH,
    ),
    "subject": Wire(
        ask(reference_images=(Media(key="cat"),), seconds=6, resolution="720p"),
        {
            "model": "S2V-01",
            "prompt": "a paper boat",
            "subject_reference": [{"type": "character", "image": [CAT_URL]}],
        },
        path=FIRST_PATH,
        task={"model": "S2V-01"},
    ),
    "no text": Wire(
        ask("", first_frame=Media(url="https://x.example/a.png")),
        {"model": "I2V-01", "first_frame_image": "https://x.example/a.png"},
        path=FIRST_PATH,
        task={"model": "I2V-01"},
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
FIRST_WORDS = {
    "Preparing": Status.queued,
    "Queueing": Status.queued,
    "Processing": Status.in_progress,
    "Success": Status.completed,
    "Fail": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "minimax",
        MiniMax,
        FakeMiniMax,
        WIRES,
        WORDS,
        lambda ref: {"task_id": ref},
        prefix="",
        model=H3,
        moderation=(422, "video description contains sensitive content", "1026"),
        credit=(402, "insufficient balance", "1008"),
        file_query="Expires=1",
        streams=False,
    ),
    Upstream(
        "minimax_hailuo",
        MiniMax,
        FakeHailuo,
        FIRST_WIRES,
        FIRST_WORDS,
        lambda ref: {"task_id": ref, "base_resp": {"status_code": 0, "status_msg": "success"}},
        prefix="",
        model=HAILUO,
        moderation=(422, "input new_sensitive", "1026"),
        credit=(402, "insufficient balance", "1008"),
        file_query="Expires=1",
        cancels=False,
        streams=False,
    ),
)
