"""Google's Gemini API, whose answers are those of `tests/recordings/google.json` with other ids and addresses: Omni by
its Interactions, Veo by its operations, and the Files API where both put their files."""

import base64
from typing import Any

from starlette.responses import Response

from app.providers.gemini import Gemini
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import KEY, Call, Fake, Job, as_json, segments
from fakes.upstream import CAT_URL, HOOK, MADE, VIDEO, Upstream, Wire, ask

OMNI, VEO = "gemini-omni-1.2-flash", "veo-3.1-generate-preview"
PREDICT = ":predictLongRunning"
DOWNLOAD = ":download"
OMNI_FIELDS = {"model", "input", "response_format", "generation_config", "previous_interaction_id", "background"}
OMNI_FIELDS |= {"store", "webhook_config", "labels", "service_tier", "safety_settings"}
VEO_PARAMETERS = {"aspectRatio", "resolution", "durationSeconds", "negativePrompt", "seed", "enhancePrompt"}
VEO_PARAMETERS |= {"personGeneration", "sampleCount"}
WORDS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
WORDS |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}


class FakeGemini(Fake):
    """`inline` plays an Omni that puts the file into its answer whatever is asked for. Files need the key."""

    waiting = working = "in_progress"
    done = "completed"
    verbs = (*Fake.verbs, "result")

    def __init__(self, *, inline: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inline = inline

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path)[1:]:
            case "POST", ["interactions"]:
                return "submit", ""
            case "POST", ["models", name] if name.endswith(PREDICT):
                return "submit", name.removesuffix(PREDICT)
            case "POST", ["interactions", ref, "cancel"]:
                return "cancel", ref
            case "GET", ["interactions", ref]:
                return "poll", ref
            case "GET", ["files", name]:
                return ("content" if name.endswith(DOWNLOAD) else "result"), name.removesuffix(DOWNLOAD)
            case "GET", [_, *_] as name:
                return "poll", "/".join(name)
        return "other", path

    def allowed(self, call: Call) -> bool:
        return call.headers.get("x-goog-api-key") == self.key and "authorization" not in call.headers

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.predict(subject, call) if subject else self.interact(call)
            case "poll" if subject in self.jobs:
                job = self.polled(self.jobs[subject])
                return as_json(self.operation(job, call) if subject.startswith("models/") else self.shown(job, call))
            case "cancel" if subject in self.jobs:
                return self.cancel(self.jobs[subject])
            case "result" if subject.startswith("f"):
                return as_json({**recorded("google", "files_get"), "name": f"files/{subject}"})
            case "content" if subject.startswith("f"):
                return Response(self.file, media_type="video/mp4")
        return self.refuse(404, "Requested entity was not found.")

    # Omni

    def interact(self, call: Call) -> Response:
        asked = call.fields
        unknown = set(asked) - OMNI_FIELDS
        if unknown or not asked.get("input") or asked.get("background") != asked.get("store"):
            return self.refuse(400, f"Request contains an invalid argument: {min(unknown, default='input')}.")
        job = self.job(f"v1_{len(self.jobs) + 1:04}", asked)
        return as_json(recorded("google", "omni_t2v_string_input") | {"id": job.ref, "model": asked["model"]})

    def shown(self, job: Job, call: Call) -> dict[str, Any]:
        if job.status == self.done:
            answer = recorded("google", "omni_poll_completed_inline" if self.inline else "omni_poll_completed_uri")
            [video] = answer["steps"][-1]["content"]
            if self.inline:
                video["data"] = base64.b64encode(self.file).decode()
            else:
                video["uri"] = self.uri(job, call)
        elif job.status == self.failed and job.message is not None:
            answer = recorded("google", "omni_poll_failed_internal")
            answer["steps"][0]["error"]["message"] = job.message
        else:
            answer = recorded("google", "omni_poll_in_progress") | {"status": job.status}
        return {**answer, "id": job.ref, "model": job.asked["model"], **job.raw.get("shown", {})}

    def cancel(self, job: Job) -> Response:
        if job.status == self.done:
            return self.refuse(400, "Interaction is not running.", "FAILED_PRECONDITION")
        self.show(job.ref, "cancelled")
        return as_json(recorded("google", "omni_cancel") | {"id": job.ref})

    # Veo

    def predict(self, model: str, call: Call) -> Response:
        [instance], parameters = call.fields.get("instances") or [{}], call.fields.get("parameters", {})
        unknown = set(parameters) - VEO_PARAMETERS
        references, frames = "referenceImages" in instance, {"image", "lastFrame", "video"} & set(instance)
        long = references or "lastFrame" in instance or parameters.get("resolution", "720p") != "720p"
        if unknown or not instance.get("prompt") or (references and frames):
            return self.refuse(400, f"Request contains an invalid argument: {min(unknown, default='instances')}.")
        if long and parameters.get("durationSeconds", 8) != 8:
            return self.refuse(400, "Your use case is currently not supported.")
        job = self.job(f"models/{model}/operations/op{len(self.jobs) + 1}", {"model": model, **call.fields})
        return as_json({**recorded("google", "veo_t2v_minimal"), "name": job.ref})

    def operation(self, job: Job, call: Call) -> dict[str, Any]:
        answer: dict[str, Any]
        if job.status == self.done:
            answer = recorded("google", "veo_poll_success")
            answer["response"]["generateVideoResponse"]["generatedSamples"][0]["video"]["uri"] = self.uri(job, call)
        elif job.status == "filtered":
            answer = recorded("google", "veo_poll_filtered")
        elif job.status == self.failed:
            answer = recorded("google", "veo_poll_error_internal")
            answer["error"]["message"] = job.message
        else:
            answer = recorded("google", "veo_poll_pending_no_done")
        return {**answer, "name": job.ref}

    # Both

    def uri(self, job: Job, call: Call) -> str:
        number = [*self.jobs].index(job.ref) + 1
        own = f"{call.origin}/v1beta/files/f{number}{DOWNLOAD}?alt=media"
        return str(job.raw.get("uri", own))

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["uri"] = url

    def unauthorized(self) -> Response:
        return as_json(recorded("google", "veo_error_401_unauthenticated"), 401)

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        error = {"code": status, "message": message, "status": code or WORDS.get(status, "UNKNOWN")}
        return as_json({"error": error}, status)


class FakeVeo(FakeGemini):
    """The same, in the words that the adapter has for an operation."""

    waiting = working = "running"
    done = "done"


CAT_DATA = CAT_URL.partition(",")[2]
IMAGE = {"type": "image", "data": CAT_DATA, "mime_type": "image/png"}
KEPT = {"background": True, "store": True}
FORMAT = {"type": "video", "delivery": "uri"}
SHAPE = {**FORMAT, "resolution": "720p", "duration": "8s"}
WIDE = {**SHAPE, "aspect_ratio": "16:9"}
PATH = "/v1/interactions"


def blocks(*more: dict[str, str]) -> list[dict[str, Any]]:
    return [{"type": "user_input", "content": [{"type": "text", "text": "a paper boat"}, *more]}]


OMNI_WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"model": OMNI, "input": "żółw 🐢", "response_format": WIDE, **KEPT}, path=PATH
    ),
    "everything": Wire(
        ask(
            seconds=15,
            aspect_ratio="9:16",
            resolution="2160p",
            seed=0,
            n=2,
            extra={"labels": {"team": "a"}, "store": False, "n": 4, "previous_interaction_id": "v1_another"},
        ),
        {
            "model": OMNI,
            "input": "a paper boat",
            "response_format": {**FORMAT, "aspect_ratio": "9:16", "resolution": "4k", "duration": "15s"},
            "generation_config": {"seed": 0},
            "webhook_config": {"uris": [HOOK]},
            "labels": {"team": "a"},
            **KEPT,
        },
        path=PATH,
        task={"callback_url": HOOK},
    ),
    "first frame": Wire(
        ask(first_frame=Media(key="cat")),
        {
            "model": OMNI,
            "input": blocks(IMAGE),
            "generation_config": {"video_config": {"task": "image_to_video"}},
            "response_format": SHAPE,
            **KEPT,
        },
        path=PATH,
    ),
    "references": Wire(
        ask(reference_images=(Media(url="https://x.example/a.jpg"), Media(key="cat"))),
        {
            "model": OMNI,
            "input": blocks({"type": "image", "uri": "https://x.example/a.jpg", "mime_type": "image/jpeg"}, IMAGE),
            "generation_config": {"video_config": {"task": "reference_to_video"}},
            "response_format": SHAPE,
            **KEPT,
        },
        path=PATH,
    ),
    "edit": Wire(
        ask(operation=Operation.edit),
        {
            "model": OMNI,
            "input": "a paper boat",
            "previous_interaction_id": "video_9/?",
            "generation_config": {"video_config": {"task": "edit"}},
            "response_format": FORMAT,
            **KEPT,
        },
        path=PATH,
        task=MADE,
    ),
    "extension of an address": Wire(
        ask(operation=Operation.extend, seconds=5, source=Media(url="https://x.example/in")),
        {
            "model": OMNI,
            "input": blocks({"type": "video", "uri": "https://x.example/in", "mime_type": "video/mp4"}),
            "generation_config": {"video_config": {"task": "extend"}},
            "response_format": {**FORMAT, "duration": "5s"},
            **KEPT,
        },
        path=PATH,
    ),
    "another version": Wire(
        ask(),
        {"model": OMNI, "input": "a paper boat", "response_format": WIDE, **KEPT},
        path="/v1beta/interactions",
        config={"api_version": "v1beta"},
    ),
    "a model that is not in the table": Wire(
        ask(extra={"input": "another", "service_tier": "flex"}),
        {"model": "gemini-omni-2", "input": "a paper boat", "response_format": FORMAT, **KEPT},
        path=PATH,
        task={"model": "gemini-omni-2"},
    ),
}

IMAGE_BYTES = {"bytesBase64Encoded": CAT_DATA, "mimeType": "image/png"}
VEO_SHAPE = {"resolution": "720p", "durationSeconds": 8}
VEO_WIDE = {**VEO_SHAPE, "aspectRatio": "16:9"}
PROMPT = {"prompt": "a paper boat"}
VEO_PATH = f"/v1beta/models/{VEO}{PREDICT}"

VEO_WIRES = {
    "prompt only": Wire(ask("żółw 🐢"), {"instances": [{"prompt": "żółw 🐢"}], "parameters": VEO_WIDE}, path=VEO_PATH),
    "everything": Wire(
        ask(
            seconds=4,
            aspect_ratio="9:16",
            negative_prompt="blur",
            seed=7,
            expand_prompt=True,
            n=2,
            extra={"personGeneration": "allow_adult", "sampleCount": 4, "seed": 9},
        ),
        {
            "instances": [PROMPT],
            "parameters": {
                "aspectRatio": "9:16",
                "resolution": "720p",
                "durationSeconds": 4,
                "negativePrompt": "blur",
                "seed": 7,
                "enhancePrompt": True,
                "personGeneration": "allow_adult",
            },
            "webhookConfig": {"uris": [HOOK]},
        },
        path=VEO_PATH,
        task={"callback_url": HOOK},
    ),
    "first and last frame": Wire(
        ask(resolution="2160p", first_frame=Media(key="cat"), last_frame=Media(key="cat")),
        {
            "instances": [{**PROMPT, "image": IMAGE_BYTES, "lastFrame": IMAGE_BYTES}],
            "parameters": {**VEO_SHAPE, "resolution": "4k"},
        },
        path=VEO_PATH,
    ),
    "references": Wire(
        ask(reference_images=(Media(key="cat"),)),
        {
            "instances": [{**PROMPT, "referenceImages": [{"image": IMAGE_BYTES, "referenceType": "ASSET"}]}],
            "parameters": VEO_SHAPE,
        },
        path=VEO_PATH,
    ),
    "extension of an upload": Wire(
        ask(operation=Operation.extend, source=Media(key="clip")),
        {
            "instances": [
                {
                    **PROMPT,
                    "video": {"encodedVideo": base64.b64encode(VIDEO).decode(), "encoding": "video/mp4"},
                }
            ],
            "parameters": VEO_SHAPE,
        },
        path=VEO_PATH,
    ),
    "another version": Wire(
        ask(),
        {"instances": [PROMPT], "parameters": VEO_WIDE},
        path=VEO_PATH.replace("v1beta", "v1"),
        config={"api_version": "v1"},
    ),
    "a model that is not in the table": Wire(
        ask(), {"instances": [PROMPT]}, path=f"/v1beta/models/veo-4%2F..%3F{PREDICT}", task={"model": "veo-4/..?"}
    ),
}

OMNI_WORDS = {
    "queued": Status.queued,
    "in_progress": Status.in_progress,
    "idle": Status.in_progress,
    "completed": Status.completed,
    "failed": Status.failed,
    "cancelled": Status.failed,
    "incomplete": Status.failed,
    "budget_exceeded": Status.failed,
    "requires_action": Status.failed,
    "requires_continuation": Status.failed,
}
VEO_WORDS = {
    "running": Status.in_progress,
    "done": Status.completed,
    "failed": Status.failed,
    "filtered": Status.failed,
}
SHARED: dict[str, Any] = {
    "prefix": "",
    "auth": {"x-goog-api-key": KEY},
    "moderation": (400, "The prompt was blocked by the safety filters.", "INVALID_ARGUMENT"),
    "credit": (429, "Your prepayment credits are depleted.", None),
    "streams": False,
    "gone_costs_nothing": False,
    "file_query": "alt=media",
}

UPSTREAMS = (
    Upstream("gemini", Gemini, FakeGemini, OMNI_WIRES, OMNI_WORDS, lambda ref: {"id": ref}, model=OMNI, **SHARED),
    Upstream(
        "gemini-veo",
        Gemini,
        FakeVeo,
        VEO_WIRES,
        VEO_WORDS,
        lambda ref: {"name": ref},
        model=VEO,
        cancels=False,
        worded=False,
        **SHARED,
    ),
)
