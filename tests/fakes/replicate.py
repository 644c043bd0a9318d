"""Replicate, as recordings of its clients show it (`tests/recordings/replicate.json`). The fields of a model are read
from the table that the adapter carries; which values they take, and what no field may be, is decided here."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

from app.providers import replicate
from app.providers.replicate import Replicate
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, File, Job, as_json, segments
from fakes.upstream import CAT_URL, HOOK, Upstream, Wire, ask

STATUSES = {
    "starting": "poll starting",
    "processing": "poll processing",
    "succeeded": "poll succeeded string",
    "failed": "poll failed",
    "canceled": "poll canceled",
    "aborted": "poll aborted",
}
"""The recorded answer for each status word."""
ERRORS = (400, 401, 402, 403, 404, 422, 429, 500, 503)
"""HTTP statuses of recorded errors; that of 422 for all else."""
MAX_DATA_URI = 1_400_000
VERSION = "a" * 64
FREE = ("starting",)
"""Statuses in which a prediction that is stopped costs nothing."""


@cache
def rows() -> dict[str, Any]:
    return tomllib.loads(Path(replicate.__file__).with_name("models.toml").read_text("utf-8"))


@cache
def fields(model: str) -> dict[str, Any]:
    """The values to choose from by field of a model; None: any."""
    row = rows()[model]
    names = [name.removesuffix("[]") for name in row["inputs"].values()]
    found = dict.fromkeys(["prompt", *names, *row.get("own", ())])
    edit = row.get("edit", {})
    found |= dict.fromkeys([*edit.get("fixed", {}), *([edit["field"]] if edit else [])])
    lengths = row.get("lengths") or (range(row["range"][0], row["range"][1] + 1) if "range" in row else [])
    if lengths:
        found["duration"] = [str(length) for length in lengths] if row.get("text_seconds") else list(lengths)
    words = row.get("resolutions", {})
    if words:
        found[row.get("resolution_field", "resolution")] = list(words.values() if isinstance(words, dict) else words)
    if "sizes" in row:
        found["size"] = row["sizes"]
    if "ratios" in row:
        found[row.get("ratio_field", "aspect_ratio")] = [*row["ratios"], row.get("media_ratio")]
    return found


class FakeReplicate(Fake):
    """Refuses a key where files are: that is another host. A prediction that is stopped before it starts is aborted."""

    waiting = "starting"
    working = "processing"
    done = "succeeded"
    verbs = (*Fake.verbs, "upload")
    uploaded = 0
    page = 0
    """Predictions on a page of the list; 0: all."""
    runs_at_once = False
    """Predictions have begun by the time that a cancel arrives."""

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["v1", "models", owner, name, "predictions"]:
                return "submit", f"{owner}/{name}"
            case "POST", ["v1", "predictions"]:
                return "submit", ""
            case "GET", ["v1", "predictions"]:
                return "list", ""
            case "GET", ["v1", "predictions", ref]:
                return "poll", ref
            case "POST", ["v1", "predictions", ref, "cancel"]:
                return "cancel", ref
            case "POST", ["v1", "files"]:
                return "upload", ""
            case "GET", ["delivery", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        return "authorization" not in call.headers if call.path.startswith("/delivery/") else super().allowed(call)

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        job = self.jobs.get(subject.removesuffix(".mp4"))
        match verb:
            case "submit":
                return self.create(subject, call)
            case "poll" if job is not None:
                return as_json(self.document(self.polled(job), call))
            case "cancel" if job is not None:
                return self.stop(job, call)
            case "list":
                return self.list(call)
            case "upload":
                return self.upload(call)
            case "content" if job is not None:
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("replicate", "poll unknown id"), 404)

    def create(self, model: str, call: Call) -> Response:
        asked = dict(call.fields)
        given = asked.pop("input", None)
        hook, events = asked.pop("webhook", None), asked.pop("webhook_events_filter", None)
        wrong = [] if isinstance(given, dict) else ["input"]
        if hook is not None and not (str(hook).startswith("https://") and events == ["completed"]):
            wrong.append("webhook")
        if asked.keys() != (set() if model else {"version"}):
            wrong += sorted(asked) or ["version"]
        if "prefer" in call.headers:  # the answer would wait for the end
            wrong.append("Prefer")
        if isinstance(given, dict) and model in rows():
            known = fields(model)
            wrong += [name for name in given if name not in known]
            wrong += [name for name, choice in known.items() if name in given and choice and given[name] not in choice]
            wrong += [name for name, value in given.items() if len(str(value)) > MAX_DATA_URI]
            row = rows()[model]
            needed = [row["inputs"][name].removesuffix("[]") for name in row.get("required", ())]
            wrong += [name for name in needed if name not in given]
        if wrong:
            return self.refuse(422, f"- input: {', '.join(wrong)} is invalid")
        job = self.job(f"gm3qorzdhgbfurvjtvhg6d{len(self.submits):04}", dict(call.fields))
        job.raw["model"] = model or "owner/name"
        return as_json(recorded("replicate", "create on official model") | self.names(job), 201)

    def stop(self, job: Job, call: Call) -> Response:
        if job.status in (self.waiting, self.working):
            self.show(job.ref, "aborted" if job.status in FREE and not self.runs_at_once else "canceled")
        return as_json(self.document(job, call))

    def list(self, call: Call) -> Response:
        shown = [self.document(job, call) for job in reversed(self.jobs.values())]
        start = int(parse_qs(call.query).get("cursor", ["0"])[0])
        end = start + (self.page or len(shown) + 1)
        following = f"{call.origin}/v1/predictions?cursor={end}" if end < len(shown) else None
        return as_json(recorded("replicate", "list page") | {"next": following, "results": shown[start:end]})

    def upload(self, call: Call) -> Response:
        name, part = (call.form or [("", "")])[0]
        if name != "content" or not isinstance(part, File):
            return self.refuse(422, "- content is required")
        self.uploaded += 1
        document = recorded("replicate", "image input as file object (SDK uploads first)")
        document["urls"] = {"get": f"{call.origin}/v1/files/f{self.uploaded}"}
        return as_json(document | {"content_type": part.content_type, "size": part.size}, 201)

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["output"] = url

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("replicate", f"submit HTTP {status if status in ERRORS else 422}")
        document = document if isinstance(document, dict) else {}
        return as_json(document | {"detail": message, "status": status}, status)

    def names(self, job: Job) -> dict[str, Any]:
        return {"id": job.ref, "status": job.status, "input": job.asked["input"]}

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = recorded("replicate", STATUSES.get(job.status, "poll processing"))
        shown |= self.names(job)
        if job.status == self.done:
            shown["output"] = f"{call.origin}/delivery/{job.ref}.mp4"
        if job.status == self.failed:
            shown["error"] = " ".join(filter(None, (job.message, f"({job.code})" if job.code else ""))) or None
        return shown | job.raw


KLING, SEEDANCE, HAPPY, WAN, FLUX = (
    "kwaivgi/kling-v3-video",
    "bytedance/seedance-2.0",
    "alibaba/happyhorse-1.1",
    "wan-video/wan-2.5-t2v",
    "black-forest-labs/flux-3",
)
A, IN = "https://x.example/a.png", "https://x.example/in.mp4"


def at(model: str) -> dict[str, Any]:
    """The path of a model, and the task that runs it."""
    return {"path": f"/v1/models/{model}/predictions", "task": {"model": model}}


def sent(**fields: Any) -> dict[str, Any]:
    return {"input": {"prompt": "a paper boat", **fields}}


USUAL = {"duration": 5, "generate_audio": True}
WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"),
        {"input": {"prompt": "żółw 🐢", "mode": "standard", "aspect_ratio": "16:9", **USUAL}},
        **at(KLING),
    ),
    "everything": Wire(
        ask(
            seconds=8,
            aspect_ratio="9:16",
            resolution="2160p",
            negative_prompt="blur",
            generate_audio=False,
            user="u1",
            n=2,
            metadata={"a": "b"},
            extra={"multi_prompt": "[]", "duration": 60, "n": 4, "mode": "pro", "prompt": "mine"},
        ),
        {
            **sent(
                duration=8,
                mode="4k",
                aspect_ratio="9:16",
                negative_prompt="blur",
                generate_audio=False,
                multi_prompt="[]",
            ),
            "webhook": HOOK,
            "webhook_events_filter": ["completed"],
        },
        path=at(KLING)["path"],
        task={"model": KLING, "callback_url": HOOK},
    ),
    "no callback without TLS": Wire(
        ask(),
        sent(mode="standard", aspect_ratio="16:9", **USUAL),
        path=at(KLING)["path"],
        task={"model": KLING, "callback_url": "http://gateway.example/hooks/x1"},
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url=A)),
        sent(mode="standard", start_image=CAT_URL, end_image=A, **USUAL),
        **at(KLING),
    ),
    "one picture as a list": Wire(
        ask(first_frame=Media(url=A), seed=0),
        sent(duration=5, resolution="720p", images=[A], seed=0),
        **at(HAPPY),
    ),
    "references": Wire(
        ask(
            reference_images=(Media(url=A), Media(key="cat")),
            reference_video=Media(url=IN),
            resolution="480p",
            extra={"reference_audios": ["https://x.example/a.mp3"]},
        ),
        sent(
            resolution="480p",
            aspect_ratio="adaptive",
            reference_images=[A, CAT_URL],
            reference_videos=[IN],
            reference_audios=["https://x.example/a.mp3"],
            **USUAL,
        ),
        **at(SEEDANCE),
    ),
    "a size": Wire(
        ask(size="1080x1920", aspect_ratio="9:16", resolution="1080p", expand_prompt=False),
        sent(duration=5, size="1080*1920", enable_prompt_expansion=False),
        **at(WAN),
    ),
    "a length as text": Wire(
        ask(seconds=10, first_frame=Media(url=A)),
        sent(duration="10", resolution="720p", aspect_ratio="auto", images=[A], generate_audio=True),
        **at(FLUX),
    ),
    "an edit": Wire(
        ask(operation=Operation.edit, source=Media(url=IN), seed=3),
        sent(video=IN, seed=3),
        **at("runwayml/aleph-2"),
    ),
    "an edit by reference": Wire(
        ask(operation=Operation.edit, source=Media(url=IN), resolution="1080p"),
        sent(reference_video=IN, video_reference_type="base", mode="pro"),
        **at("kwaivgi/kling-v3-omni-video"),
    ),
    "an unknown model": Wire(
        ask(extra={"frames": 81, "n": 2, "prompt": "mine"}), sent(frames=81), **at("some-one/new.model_1")
    ),
    "a version": Wire(
        ask(extra={"frames": 81}),
        {**sent(frames=81), "version": VERSION},
        path="/v1/predictions",
        task={"model": f"some-one/new.model_1:{VERSION}"},
    ),
    "a bare version": Wire(ask(), {**sent(), "version": VERSION}, path="/v1/predictions", task={"model": VERSION}),
}
WORDS = {
    "starting": Status.queued,
    "processing": Status.in_progress,
    "succeeded": Status.completed,
    "failed": Status.failed,
    "canceled": Status.failed,
    "aborted": Status.failed,
}

UPSTREAMS = (
    Upstream(
        "replicate",
        Replicate,
        FakeReplicate,
        WIRES,
        WORDS,
        lambda ref: recorded("replicate", "create on official model") | {"id": ref},
        model=KLING,
        moderation=(422, "The input was flagged as sensitive. (E005)", ""),
        credit=(402, "You have insufficient credit to run this model.", None),
        streams=False,
        gone_costs_nothing=False,
    ),
)
