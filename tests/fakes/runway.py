"""Runway, as the recordings of its clients show it (`tests/recordings/runway.json`). Which fields a model has is read
from the vendor's types, which the adapter carries; what is required, and what no field may be, is decided here."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from starlette.responses import Response

from app.providers import runway
from app.providers.runway import Runway
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import KEY, Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, Upstream, Wire, ask

VERSION = "2024-11-06"
ENDPOINTS = ("text_to_video", "image_to_video", "video_to_video")
STATUSES = {
    "PENDING": "poll PENDING",
    "THROTTLED": "poll THROTTLED",
    "RUNNING": "poll RUNNING",
    "SUCCEEDED": "poll SUCCEEDED",
    "FAILED": "poll FAILED internal",
    "CANCELLED": "poll CANCELLED",
}
"""The recorded answer for each status word."""
ERRORS = (400, 401, 403, 404, 405, 413, 422, 429, 500, 503)
"""HTTP statuses of recorded errors; one of 500 for all else."""
MAX_DATA_URI = 5_000_000
FAILURE_CODES = ("failureCode", "failure")


@cache
def types() -> dict[str, Any]:
    file = Path(runway.__file__).with_name("models.json")
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))["models"]
    return found


class FakeRunway(Fake):
    """Refuses a call without the version header, and a key where files and uploads go: those are other hosts. Signs the
    address of a file anew at each read."""

    waiting = "PENDING"
    working = "RUNNING"
    done = "SUCCEEDED"
    failed = "FAILED"
    verbs = (*Fake.verbs, "upload")
    uploaded = 0
    credits_of_deleted: int | None = None
    """Credits that a deleted task has cost, which is then shown as cancelled; None: its id is unknown."""

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v1", name] if name in ENDPOINTS:
                return "submit", ""
            case "GET", ["v1", "tasks", ref]:
                return "poll", ref
            case "DELETE", ["v1", "tasks", ref]:
                return "cancel", ref
            case "POST", ["v1", "uploads"]:
                return "upload", "ticket"
            case "POST", ["bucket"]:
                return "upload", "file"
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        if call.path.startswith(("/files/", "/bucket")):
            return not {"authorization", "x-runway-version"} & call.headers.keys()
        return super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        if call.path.startswith("/v1/") and call.headers.get("x-runway-version") != VERSION:
            return FakeRunway.refuse(self, 400, "The X-Runway-Version header is missing or no version")
        match verb:
            case "submit":
                return self.create(call)
            case "poll" if subject in self.jobs:
                return as_json(self.document(self.polled(self.jobs[subject]), call))
            case "cancel" if subject in self.jobs and self.credits_of_deleted is not None:
                self.show(subject, "CANCELLED")
                self.jobs[subject].raw["cost"] = {"credits": self.credits_of_deleted}
                return Response(status_code=204)
            case "cancel" if subject in self.jobs:
                del self.jobs[subject]
                return Response(status_code=204)
            case "upload" if subject == "ticket":
                return self.ticket(call)
            case "upload":
                return Response(status_code=204)
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("runway", "poll 404"), 404)

    def create(self, call: Call) -> Response:
        asked, name = call.fields, segments(call.path)[-1]
        fields = types().get(asked.get("model", ""), {}).get(name)
        if fields is None:
            return self.invalid("model")
        if asked.keys() == {"model", "draftTaskId"}:
            fields = {"draftTaskId": fields["draftTaskId"]}
        lacking = [field for field, kind in fields.items() if kind["required"] and field not in asked]
        unknown = asked.keys() - fields.keys() - {"model"}
        wrong = [field for field in asked.keys() & fields.keys() if not is_one_of(asked[field], fields[field]["type"])]
        if lacking or unknown or wrong or self.is_contrary(asked):
            return self.invalid(min([*lacking, *unknown, *wrong], default="mode"))
        job = self.job(f"17f20503-6c24-4c16-946b-{len(self.submits):012}", asked)
        return as_json(recorded("runway", "text_to_video gen4.5 all fields") | {"id": job.ref})

    def is_contrary(self, asked: dict[str, Any]) -> bool:
        """The rules in the comments of the types on Seedance 2.5, and on a draft."""
        if asked.get("draftTaskId"):
            return len(asked) > 2
        if asked.get("model") != "seedance2_5" or asked.get("mode") not in ("extend", "edit"):
            return False
        return "ratio" in asked or (asked["mode"] == "edit" and asked.get("duration") != "auto")

    def invalid(self, name: str) -> Response:
        document = recorded("runway", "submit HTTP 400")
        document["issues"][0]["path"] = [name]
        return as_json(document, 400)

    def ticket(self, call: Call) -> Response:
        if call.fields.keys() != {"filename", "type"}:
            return self.invalid("filename")
        self.uploaded += 1
        uri = f"runway://k{self.uploaded}"
        return as_json(
            recorded("runway", "upload ephemeral") | {"uploadUrl": f"{call.origin}/bucket", "runwayUri": uri}
        )

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["output"] = [url]

    def unauthorized(self) -> Response:
        return as_json(recorded("runway", "submit HTTP 401"), 401)

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("runway", f"submit HTTP {status if status in ERRORS else 500}")
        document.pop("issues", None)
        return as_json(document | {"error": message}, status)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = recorded("runway", STATUSES.get(job.status, "poll unknown word"))
        shown |= {"id": job.ref, "status": job.status}
        if job.status == self.done:
            shown["output"] = [f"{call.origin}/files/{job.ref}.mp4?_jwt={job.polls}"]
        if job.status == self.failed:
            shown = {name: value for name, value in shown.items() if name not in FAILURE_CODES}
            given = {"failure": job.message, "failureCode": job.code}
            shown |= {name: value for name, value in given.items() if value is not None}
        return shown | job.raw


def is_one_of(value: Any, kind: str) -> bool:
    """True for a value of a type: one of the words that are listed, a number, or an address of a medium."""
    if kind in ("int", "bool"):
        return isinstance(value, int) and isinstance(value, bool) == (kind == "bool")
    if kind in ("int or auto", "auto or int"):
        return value == "auto" or (isinstance(value, int) and not isinstance(value, bool))
    if re.fullmatch(r"\d+(\|\d+)+", kind):
        return str(value) in kind.split("|") and isinstance(value, int)
    if "{" not in kind and "|" in kind:
        return value in kind.split("|")
    text = json.dumps(value)
    return bool(value) and ("data:" not in text or len(text) <= MAX_DATA_URI)


VERSIONED = {"x-runway-version": VERSION}
GEN, SEEDANCE = "gen4.5", "seedance2"
TEXT, PICTURE, VIDEO = (f"/v1/{name}" for name in ENDPOINTS)
SOURCE = Media(url="https://x.example/in.mp4")

WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"model": GEN, "promptText": "żółw 🐢", "ratio": "1280:720", "duration": 5}, path=TEXT
    ),
    "everything": Wire(
        ask(
            seconds=8,
            aspect_ratio="9:16",
            resolution="720p",
            seed=0,
            user="u1",
            n=2,
            extra={"outputFormat": "mp4", "duration": 60, "n": 4},
        ),
        {
            "model": GEN,
            "promptText": "a paper boat",
            "ratio": "720:1280",
            "duration": 8,
            "seed": 0,
            "outputFormat": "mp4",
        },
        path=TEXT,
    ),
    "first frame": Wire(
        ask(first_frame=Media(key="cat"), aspect_ratio="4:3"),
        {"model": GEN, "promptText": "a paper boat", "promptImage": CAT_URL, "ratio": "1104:832", "duration": 5},
        path=PICTURE,
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url="https://x.example/z.png"), generate_audio=False),
        {
            "model": "veo3.1",
            "promptText": "a paper boat",
            "promptImage": [
                {"uri": CAT_URL, "position": "first"},
                {"uri": "https://x.example/z.png", "position": "last"},
            ],
            "ratio": "1280:720",
            "duration": 8,
            "audio": False,
        },
        path=PICTURE,
        task={"model": "veo3.1"},
    ),
    "references": Wire(
        ask(
            reference_images=(Media(url="https://x.example/a.png"), Media(key="cat")),
            reference_video=SOURCE,
            resolution="480p",
        ),
        {
            "model": SEEDANCE,
            "promptText": "a paper boat",
            "references": [{"uri": "https://x.example/a.png"}, {"uri": CAT_URL}],
            "referenceVideos": [{"type": "video", "uri": "https://x.example/in.mp4"}],
            "ratio": "864:496",
            "duration": 5,
        },
        path=TEXT,
        task={"model": SEEDANCE},
    ),
    "edit": Wire(
        ask(operation=Operation.edit, source=SOURCE, aspect_ratio="9:16"),
        {
            "model": "aleph2",
            "promptText": "a paper boat",
            "videoUri": "https://x.example/in.mp4",
            "targetAspectRatio": "9:16",
        },
        path=VIDEO,
        task={"model": "aleph2"},
    ),
    "edit by Seedance 2.5": Wire(
        ask(operation=Operation.edit, source=SOURCE),
        {
            "model": "seedance2_5",
            "promptText": "a paper boat",
            "promptVideo": "https://x.example/in.mp4",
            "mode": "edit",
            "duration": "auto",
        },
        path=VIDEO,
        task={"model": "seedance2_5"},
    ),
}
WORDS = {
    "PENDING": Status.queued,
    "THROTTLED": Status.queued,
    "RUNNING": Status.in_progress,
    "SUCCEEDED": Status.completed,
    "FAILED": Status.failed,
    "CANCELLED": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "runway",
        Runway,
        FakeRunway,
        WIRES,
        WORDS,
        lambda ref: {"id": ref, "estimatedCost": {"credits": 60}},
        prefix="",
        model=GEN,
        auth={"authorization": f"Bearer {KEY}", **VERSIONED},
        moderation=(400, "The prompt was blocked by our moderation system.", ""),
        credit=(400, "You do not have enough credits to run this task.", None),
        file_query="_jwt=1",
        streams=False,
    ),
)
