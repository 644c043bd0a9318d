"""xAI's REST API, as the recordings of a client of others show it (`tests/recordings/xai.json`)."""

from typing import Any

from starlette.responses import Response

from app.providers.xai import XAI
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, LINK, Upstream, Wire, ask

MODEL = "grok-imagine-video-1.5"
OLD = "grok-imagine-video"
ALL = "rest t2v all options"
ERRORS = {
    401: ("rest submit HTTP 401", 0),
    403: ("rest submit HTTP 403", 0),
    404: ("rest poll 404", 1),
    429: ("rest submit HTTP 429", 0),
    500: ("rest poll 500", 1),
    503: ("rest submit HTTP 503", 0),
}
"""Case and number of the recorded answer for each HTTP status."""
STATUSES = {
    "done": (ALL, 4),
    "failed": ("rest poll failed", 1),
    "expired": ("rest poll expired", 1),
}
GENERATED = {"model", "prompt", "duration", "aspect_ratio", "resolution", "image", "last_frame", "keyframes"}
GENERATED |= {"reference_images", "reference_audios", "generate_audio", "user", "storage_options"}
FIELDS = {
    "generations": GENERATED,
    "edits": {"model", "prompt", "video", "user", "storage_options"},
    "extensions": {"model", "prompt", "video", "duration", "storage_options"},
}
ONLY_1_5 = {"last_frame", "keyframes", "generate_audio"}
RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
RESOLUTIONS = ("480p", "720p", "1080p")
LENGTHS = {"generations": range(1, 16), "extensions": range(2, 11)}


class FakeXAI(Fake):
    """Has one word for a task that waits and one that runs: the first poll is answered with 202 and nothing, the later
    ones with the progress. Refuses a key where files lie: that is another host."""

    waiting = "pending"
    working = "pending"
    done = "done"
    price_ticks = 1_400_000_000
    """Cost of a second, in ticks."""

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v1", "videos", "generations" | "edits" | "extensions" as kind]:
                return "submit", kind
            case "GET", ["v1", "videos", ref]:
                return "poll", ref
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return "authorization" not in call.headers if call.path.startswith("/files/") else super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.create(subject, call)
            case "poll" if subject in self.jobs:
                return self.poll(self.polled(self.jobs[subject]), call)
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("xai", "rest poll 404", 1), 404)

    def create(self, kind: str, call: Call) -> Response:
        asked = call.json
        if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
            return Response(recorded("xai", "rest submit HTTP 422"), 422, media_type="text/plain")
        if not self.is_right(kind, asked):
            return self.refuse(400, "Invalid request content")
        job = self.job(f"d97415a1-5796-b7ec-379f-{len(self.submits):012}", asked)
        return as_json(recorded("xai", "rest minimal") | {"request_id": job.ref})

    def is_right(self, kind: str, asked: dict[str, Any]) -> bool:
        media = [asked[name] for name in ("image", "last_frame", "video") if name in asked]
        media += asked.get("reference_images", [])
        lengths = LENGTHS.get(kind, range(0))
        resolutions = RESOLUTIONS[:2] if asked["model"] == OLD or "reference_images" in asked else RESOLUTIONS
        return (
            not set(asked) - FIELDS[kind]
            and bool(asked.get("prompt") or "image" in asked)
            and ("video" in asked) == (kind != "generations")
            and all(medium["url"].startswith(("https://", "http://", "data:image/")) for medium in media)
            and not ("image" in asked and "reference_images" in asked)
            and (kind == "generations" or asked["model"] == OLD)
            and (asked["model"] == MODEL or not ONLY_1_5 & set(asked))
            and ("duration" not in asked or (type(asked["duration"]) is int and asked["duration"] in lengths))
            and asked.get("aspect_ratio", RATIOS[0]) in RATIOS
            and asked.get("resolution", RESOLUTIONS[0]) in resolutions
        )

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["video"] = {"url": url, "respect_moderation": True}

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        """An error in the shape that is recorded for its status."""
        case, number = ERRORS.get(status, ("rest submit HTTP 400", 0))
        document: dict[str, Any] = recorded("xai", case, number)
        if isinstance(document["error"], dict):
            document["error"] |= {"message": message, **({} if code is None else {"code": code})}
        else:
            document |= {"error": message, **({} if code is None else {"code": code})}
        return as_json(document, status)

    def poll(self, job: Job, call: Call) -> Response:
        if job.moving and job.status == self.waiting and job.polls == 1:
            return Response(status_code=202)
        return as_json(self.document(job, call))

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = recorded("xai", *STATUSES.get(job.status, (ALL, 3)))
        shown["status"] = job.status
        if job.status == self.done:
            seconds = job.asked.get("duration", 8)
            shown["video"] |= {"url": f"{call.origin}/files/{job.ref}.mp4", "duration": seconds}
            shown["model"] = job.asked["model"]
            shown["usage"]["cost_in_usd_ticks"] = self.price_ticks * seconds
        if job.status == self.failed:
            shown["error"] = {"code": job.code, "message": job.message}
        return shown | job.raw


GENERATIONS, EDITS, EXTENSIONS = (f"/v1/videos/{kind}" for kind in ("generations", "edits", "extensions"))
TEXT = {"prompt": "a paper boat"}
SHAPE = {"duration": 8, "resolution": "480p"}
IN = "https://x.example/in.mp4"
STORED = {"filename": "a.mp4", "public_url": True}

WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {"model": MODEL, "prompt": "żółw 🐢", **SHAPE}, path=GENERATIONS),
    "everything": Wire(
        ask(
            seconds=6,
            aspect_ratio="16:9",
            resolution="720p",
            generate_audio=False,
            user="u1",
            n=2,
            extra={"storage_options": STORED, "n": 4, "duration": 60, "prompt": "mine"},
        ),
        {
            "model": MODEL,
            **TEXT,
            "duration": 6,
            "aspect_ratio": "16:9",
            "resolution": "720p",
            "generate_audio": False,
            "user": "u1",
            "storage_options": STORED,
        },
        path=GENERATIONS,
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png")),
        {
            "model": MODEL,
            **TEXT,
            **SHAPE,
            "image": {"url": CAT_URL},
            "last_frame": {"url": "https://x.example/z.png"},
        },
        path=GENERATIONS,
    ),
    "no text": Wire(
        ask("", first_frame=Media(url="https://x.example/a.png")),
        {"model": MODEL, **SHAPE, "image": {"url": "https://x.example/a.png"}},
        path=GENERATIONS,
    ),
    "references": Wire(
        ask(reference_images=(Media(url="https://x.example/a.png"), Media(key="cat"))),
        {
            "model": OLD,
            **TEXT,
            **SHAPE,
            "reference_images": [{"url": "https://x.example/a.png"}, {"url": CAT_URL}],
        },
        path=GENERATIONS,
        task={"model": OLD},
    ),
    "edit": Wire(
        ask(operation=Operation.edit, source=Media(url=IN), user="u1", seconds=6, resolution="720p"),
        {"model": OLD, **TEXT, "video": {"url": IN}, "user": "u1"},
        path=EDITS,
        task={"model": OLD},
    ),
    "edit of an upload": Wire(
        ask(operation=Operation.edit, source=Media(key="clip")),
        {"model": OLD, **TEXT, "video": {"url": "https://gateway.example/clip"}},
        path=EDITS,
        task={"model": OLD, **LINK},
    ),
    "extension": Wire(
        ask(operation=Operation.extend, source=Media(url=IN), user="u1", seconds=4, aspect_ratio="16:9"),
        {"model": OLD, **TEXT, "video": {"url": IN}, "duration": 4},
        path=EXTENSIONS,
        task={"model": OLD},
    ),
    "extension without a length": Wire(
        ask(operation=Operation.extend, source=Media(url=IN)),
        {"model": OLD, **TEXT, "video": {"url": IN}, "duration": 6},
        path=EXTENSIONS,
        task={"model": OLD},
    ),
    "a model that is not known": Wire(
        ask(seconds=7, extra={"reference_audios": [{"voice_id": "ara"}]}),
        {"model": "grok-imagine-video-2", **TEXT, "duration": 7, "reference_audios": [{"voice_id": "ara"}]},
        path=GENERATIONS,
        task={"model": "grok-imagine-video-2"},
    ),
}

WORDS = {
    "pending": Status.in_progress,
    "done": Status.completed,
    "failed": Status.failed,
    "expired": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "xai",
        XAI,
        FakeXAI,
        WIRES,
        WORDS,
        lambda ref: {"request_id": ref},
        model=MODEL,
        moderation=(400, "Prompt moderated", "Client specified an invalid argument"),
        credit=(
            429,
            "Your team has either used all available credits or reached its monthly spending limit.",
            "Some resource has been exhausted",
        ),
        cancels=False,
        streams=False,
    ),
)
