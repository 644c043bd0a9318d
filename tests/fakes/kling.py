"""Kling, as its recordings show it (`tests/recordings/kling.json`): API 2.0 ignores unknown fields, v1 is served beside
it. What the notes of the recordings say that the vendor refuses is refused."""

import base64
import hmac
import json
import re
import time
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

from app.providers.kling import Kling
from app.video import Media, Operation, Status
from fakes.recorded import recorded
from fakes.server import Call, Fake, Job, as_json, segments
from fakes.upstream import CAT, HOOK, LINK, Upstream, Wire, ask

MODEL = "kling-3.0"
ACCESS_KEY, SECRET_KEY = "AKfake0000", "SKfake0000secretsecret"
MOST_IDS = 20
LENGTHS: dict[str, Any] = {
    **dict.fromkeys(("kling-3.0", "kling-3.0-omni", "kling-3.0-turbo"), range(3, 16)),
    **dict.fromkeys(("kling-2.6", "kling-2.5-turbo"), (5, 10)),
    "kling-o1": range(3, 11),
}
UP_TO_4K = ("kling-3.0", "kling-3.0-omni")
SOUNDS = {
    "kling-3.0": ("native", "off"),
    "kling-3.0-omni": ("native", "original", "off"),
    "kling-2.6": ("native", "off"),
    "kling-o1": ("original", "off"),
}
"""Values of `audio`; the models that are not here ignore it."""
STATUSES = {
    "submitted": "v2_poll_submitted",
    "processing": "v2_poll_processing",
    "succeeded": "v2_poll_succeeded_cash",
    "succeed": "v2_poll_succeeded_cash",
    "failed": "v2_poll_failed_risk",
}
OLD_STATUSES = {
    "submitted": "v1_poll_submitted",
    "processing": "v1_poll_processing",
    "succeeded": "v1_poll_succeed",
    "succeed": "v1_poll_succeed",
    "failed": "v1_poll_failed_risk",
}
"""The recorded answer for each status word, in both APIs."""
CODES = {400: 1201, 401: 1000, 402: 1102, 403: 1103, 404: 1203, 429: 1302, 500: 5000, 503: 5001, 504: 5002}


class FakeKling(Fake):
    """Refuses a key where files lie: that is a bucket with signed addresses."""

    waiting = "submitted"
    working = "processing"
    done = "succeeded"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unlisted: set[str] = set()
        """Tasks that the vendor does not list yet."""

    def route(self, method: str, path: str) -> tuple[str, str]:
        match method, segments(path):
            case "POST", ["text-to-video" | "image-to-video" | "omni-video", model]:
                return "submit", model
            case "POST", ["v1", "videos", "text2video" | "image2video" | "multi-image2video"]:
                return "submit", ""
            case "GET", ["tasks"]:
                return "poll", ""
            case "GET", ["v1", "videos", "text2video" | "image2video" | "multi-image2video", ref]:
                return "poll", ref
            case "POST", ["tasks"]:
                return "list", ""
            case "GET", ["files", name]:
                return "content", name
        return "other", path

    def allowed(self, call: Call) -> bool:
        if call.path.startswith("/files/"):
            return "authorization" not in call.headers
        return super().allowed(call) or (call.path.startswith("/v1/") and self.fault_of(call) is None)

    def _answer(self, verb: str, subject: str, call: Call) -> Response:
        if not self.allowed(call) and not call.path.startswith("/files/"):
            fault = self.fault_of(call) if call.path.startswith("/v1/") else "v2_error_401_jwt"
            given = call.headers.get("authorization", "")
            return as_json(recorded("kling", fault if given.count(".") == 2 and fault else "v2_error_401_1000"), 401)
        return super()._answer(verb, subject, call)

    def fault_of(self, call: Call) -> str | None:
        """The recorded answer to a token that is no good."""
        parts = call.headers.get("authorization", "").removeprefix("Bearer ").split(".")
        if len(parts) != 3:
            return "v1_error_401_1000"
        digest = hmac.digest(SECRET_KEY.encode(), ".".join(parts[:2]).encode(), "sha256")
        signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        if signature != parts[2] or claims["iss"] != ACCESS_KEY or claims["nbf"] > time.time():
            return "v1_error_401_1000"
        return None if claims["exp"] > time.time() else "v1_error_401_1004"

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "submit":
                return self.create_old(call) if call.path.startswith("/v1/") else self.create(subject, call)
            case "poll":
                return self.read_old(subject, call) if subject else self.read(call)
            case "list":
                return self.list(call)
            case "content" if subject.removesuffix(".mp4") in self.jobs:
                return Response(self.file, media_type="video/mp4")
        return as_json(recorded("kling", "v2_error_404_1203"), 404)

    # API 2.0

    def create(self, model: str, call: Call) -> Response:
        asked, endpoint = call.fields, segments(call.path)[0]
        if endpoint != "text-to-video" and not asked.get("contents"):
            return as_json(recorded("kling", "v2_error_400_contents_empty"), 400)
        if model not in LENGTHS:
            return as_json(recorded("kling", "v2_error_404_1203"), 404)
        if asked.get("settings", {}).get("resolution") == "4k" and model not in UP_TO_4K:
            return as_json(recorded("kling", "v2_error_400_4k_turbo"), 400)
        why = self.why_not(model, endpoint, asked)
        if why is not None:
            return self.refuse(400, why)
        own_id = asked.get("options", {}).get("external_task_id", "")
        if self.has(own_id):
            return as_json(recorded("kling", "v2_error_400_duplicate_external_id"), 400)
        job = self.job(str(893611223344556677 + len(self.submits)), {"own_id": own_id, **asked})
        document = recorded("kling", "v2_t2v_3_0")
        document["data"] |= {"id": job.ref, "external_id": own_id}
        return as_json(document)

    def has(self, own_id: str) -> bool:
        return bool(own_id) and any(job.asked["own_id"] == own_id for job in self.jobs.values())

    def why_not(self, model: str, endpoint: str, asked: dict[str, Any]) -> str | None:
        """The reason why the vendor refuses a request, by the notes of the recordings; None if it does not."""
        settings = asked.get("settings", {})
        items = asked.get("contents") or [{"type": "prompt", "text": asked.get("prompt")}]
        types = [item["type"] for item in items]
        videos = [item["url"] for item in items if item["type"].endswith("_video")]
        faults = {
            "prompt cannot be empty": not all(item["text"] for item in items if item["type"] == "prompt"),
            "endpoint": (endpoint == "omni-video") is not ("omni" in model or model == "kling-o1"),
            "first_frame is required": "last_frame" in types and "first_frame" not in types,
            "last_frame": "last_frame" in types and not _takes_last(model, settings),
            "aspect_ratio": endpoint == "omni-video"
            and not {"first_frame", "base_video", "feature_video"} & set(types)
            and "aspect_ratio" not in settings,
            "url": not all(_is_picture(item["url"]) for item in items if "url" in item and item["url"] not in videos)
            or not all(url.startswith(("https://", "http://")) for url in videos),
            "too many": types.count("refer_image") > (4 if videos else 7) or len(videos) > 1,
            "duration": settings.get("duration", 5) not in LENGTHS[model]
            or (model == "kling-o1" and "refer_image" not in types and settings.get("duration", 5) not in (5, 10)),
            "audio": not _takes_sound(model, settings, types),
            "multi_shot": "feature_video" in types and settings.get("multi_shot", True) is not True,
        }
        return next((f"Invalid parameter value: {name}" for name, wrong in faults.items() if wrong), None)

    def read(self, call: Call) -> Response:
        query = {name: values[0].split(",") for name, values in parse_qs(call.query).items()}
        refs, own_ids = query.get("task_ids", []), query.get("external_task_ids", [])
        if bool(refs) is bool(own_ids) or len(refs) + len(own_ids) > MOST_IDS:
            return as_json(recorded("kling", "v1_error_400_1201"), 400)
        found = [job for job in self.jobs.values() if job.ref in refs or job.asked["own_id"] in own_ids]
        listed = [self.document(self.polled(job), call) for job in found if job.ref not in self.unlisted]
        return as_json(recorded("kling", "v2_poll_empty") | {"data": listed})

    def list(self, call: Call) -> Response:
        asked = call.fields
        start = int(asked.get("cursor") or 0)
        jobs = list(reversed(self.jobs.values()))
        rows = [self.document(job, call) for job in jobs[start : start + asked["limit"]]]
        more = start + asked["limit"] < len(jobs)
        document = recorded("kling", "v2_list_cursor")
        next_cursor = str(start + asked["limit"]) if more else ""
        document["data"] |= {"result": rows, "has_more": more, "next_cursor": next_cursor, "count": len(rows)}
        return as_json(document)

    def document(self, job: Job, call: Call) -> dict[str, Any]:
        shown: dict[str, Any] = recorded("kling", STATUSES.get(job.status, "v2_poll_processing"))["data"][0]
        shown |= {"id": job.ref, "external_id": job.asked["own_id"], "status": job.status, "message": ""}
        if shown["outputs"]:
            shown["outputs"][0]["url"] = f"{call.origin}/files/{job.ref}.mp4"
        if job.status == self.failed:
            shown["message"] = job.message or ""
        return shown | job.raw

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["outputs"] = [{"type": "video", "id": "v-1", "url": url, "duration": "5.041"}]

    # API v1

    def create_old(self, call: Call) -> Response:
        asked = call.fields
        images = [asked.get("image"), asked.get("image_tail"), *(one["image"] for one in asked.get("image_list", []))]
        fine = (
            asked.get("model_name", "kling-v1").startswith("kling-v")
            and asked.get("prompt")
            and asked.get("duration", "5") in [str(seconds) for seconds in range(3, 16)]
            and asked.get("mode", "std") in ("std", "pro")
            and asked.get("sound", "off") in ("on", "off")
            and all(_is_picture(image) for image in images if image is not None)
            and (call.path.endswith("/image2video") is (asked.get("image") is not None))
        )
        own_id = asked.get("external_task_id", "")
        if self.has(own_id):
            return as_json(recorded("kling", "v2_error_400_duplicate_external_id"), 400)
        if not fine:
            return as_json(recorded("kling", "v1_error_400_1201"), 400)
        job = self.job(f"Cjx{len(self.submits)}", {"own_id": own_id, "path": call.path, **asked})
        document = recorded("kling", "v1_t2v_apikey")
        document["data"] |= {"task_id": job.ref, "task_info": {"external_task_id": own_id}}
        return as_json(document)

    def read_old(self, name: str, call: Call) -> Response:
        path = call.path.rpartition("/")[0]
        found = [job for job in self.jobs.values() if name in (job.ref, job.asked["own_id"])]
        if not found or found[0].asked.get("path") != path:
            return as_json(recorded("kling", "v1_error_404_1203"), 404)
        job = self.polled(found[0])
        shown = recorded("kling", OLD_STATUSES.get(job.status, "v1_poll_processing"))
        task = shown["data"]
        task |= {"task_id": job.ref, "task_status": job.status, "task_status_msg": ""}
        task["task_info"] = {"external_task_id": job.asked["own_id"]}
        if "task_result" in task:
            task["task_result"]["videos"][0]["url"] = f"{call.origin}/files/{job.ref}.mp4"
        if job.status == self.failed:
            task["task_status_msg"] = job.message or ""
        if "outputs" in job.raw:
            task["task_result"] = {"videos": job.raw["outputs"]}
        return as_json(shown)

    # Errors

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        document = recorded("kling", "v2_error_400_1200")
        number = int(code) if code is not None and code.isdecimal() else CODES.get(status, 5000)
        return as_json(document | {"code": number, "message": message}, status)


class FakeKlingV1(FakeKling):
    """The same vendor, with the word of v1 for a task that is done."""

    done = "succeed"


def _takes_last(model: str, settings: dict[str, Any]) -> bool:
    at_1080p = settings.get("resolution") == "1080p"
    return model != "kling-3.0-turbo" and (at_1080p or model not in ("kling-2.6", "kling-2.5-turbo"))


def _takes_sound(model: str, settings: dict[str, Any], types: list[str]) -> bool:
    sound = settings.get("audio")
    if sound is None or model not in SOUNDS:
        return True
    if "feature_video" in types and sound != "off":
        return False
    wrong = (model == "kling-2.6" and settings.get("resolution") != "1080p") or "base_video" in types
    return sound in SOUNDS[model] and not (sound == "native" and wrong)


def _is_picture(value: str) -> bool:
    """True for an address, and for base64 without a prefix."""
    return value.startswith(("https://", "http://")) or re.fullmatch(r"[A-Za-z0-9+/]+=*", value) is not None


BARE = base64.b64encode(CAT).decode()
SETTINGS = {"resolution": "720p", "duration": 5}
OPTIONS = {"external_task_id": "attempt_1"}
TEXT = {"type": "prompt", "text": "a paper boat"}
A, Z, CLIP = "https://x.example/a.png", "https://x.example/z.png", "https://x.example/in.mp4"


def item(kind: str, url: str, name: str | None = None) -> dict[str, str]:
    return {"type": kind, "url": url} | ({"id": name} if name else {})


WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"),
        {
            "prompt": "żółw 🐢",
            "settings": {**SETTINGS, "aspect_ratio": "16:9", "audio": "native", "multi_shot": False},
            "options": OPTIONS,
        },
        path="/text-to-video/kling-3.0",
    ),
    "everything": Wire(
        ask(
            seconds=15,
            aspect_ratio="9:16",
            resolution="2160p",
            generate_audio=False,
            n=2,
            extra={"watermark_info": {"enabled": True}, "multi_shot": True, "n": 4},
        ),
        {
            "prompt": "a paper boat",
            "settings": {
                "resolution": "4k",
                "duration": 15,
                "aspect_ratio": "9:16",
                "audio": "off",
                "multi_shot": True,
            },
            "options": {**OPTIONS, "callback_url": HOOK, "watermark_info": {"enabled": True}},
        },
        path="/text-to-video/kling-3.0",
        task={"callback_url": HOOK},
    ),
    "first and last frame": Wire(
        ask(
            first_frame=Media(key="cat"),
            last_frame=Media(url=Z),
            extra={"elements": [{"element_id": "321", "id": "chen", "type": "base_video"}]},
        ),
        {
            "contents": [
                TEXT,
                item("first_frame", BARE),
                item("last_frame", Z),
                {"type": "element", "element_id": "321", "id": "chen"},
            ],
            "settings": {**SETTINGS, "audio": "native", "multi_shot": False},
            "options": OPTIONS,
        },
        path="/image-to-video/kling-3.0",
    ),
    "an upload by its link": Wire(
        ask(first_frame=Media(key="cat")),
        {
            "contents": [TEXT, item("first_frame", "https://gateway.example/cat")],
            "settings": SETTINGS,
            "options": OPTIONS,
        },
        path="/image-to-video/kling-3.0-turbo",
        task={"model": "kling-3.0-turbo", **LINK},
    ),
    "turbo": Wire(
        ask(),
        {"prompt": "a paper boat", "settings": {**SETTINGS, "aspect_ratio": "16:9"}, "options": OPTIONS},
        path="/text-to-video/kling-3.0-turbo",
        task={"model": "kling-3.0-turbo"},
    ),
    "a text at omni": Wire(
        ask(),
        {
            "contents": [TEXT],
            "settings": {**SETTINGS, "aspect_ratio": "16:9", "audio": "native", "multi_shot": False},
            "options": OPTIONS,
        },
        path="/omni-video/kling-3.0-omni",
        task={"model": "kling-3.0-omni"},
    ),
    "references": Wire(
        ask(seconds=7, reference_images=(Media(url=A), Media(key="cat"))),
        {
            "contents": [TEXT, item("refer_image", A, "image_1"), item("refer_image", BARE, "image_2")],
            "settings": {**SETTINGS, "duration": 7, "aspect_ratio": "16:9", "audio": "off"},
            "options": OPTIONS,
        },
        path="/omni-video/kling-o1",
        task={"model": "kling-o1"},
    ),
    "a reference video": Wire(
        ask(reference_video=Media(url=CLIP)),
        {
            "contents": [TEXT, item("feature_video", CLIP, "video_1")],
            "settings": {**SETTINGS, "audio": "off"},
            "options": OPTIONS,
        },
        path="/omni-video/kling-3.0-omni",
        task={"model": "kling-3.0-omni"},
    ),
    "edit": Wire(
        ask(operation=Operation.edit, source=Media(key="clip"), reference_images=(Media(url=A),)),
        {
            "contents": [
                TEXT,
                item("refer_image", A, "image_1"),
                item("base_video", "https://gateway.example/clip", "video_1"),
            ],
            "settings": {"resolution": "720p", "audio": "original", "multi_shot": False},
            "options": OPTIONS,
        },
        path="/omni-video/kling-3.0-omni",
        task={"model": "kling-3.0-omni", **LINK},
    ),
}

OLD_PATH = "/v1/videos/text2video"
OLD = {
    "model_name": "kling-v3",
    "prompt": "a paper boat",
    "mode": "std",
    "duration": "5",
    "external_task_id": "attempt_1",
}
OLD_WIRES = {
    "prompt only": Wire(ask(), {**OLD, "aspect_ratio": "16:9", "multi_shot": False}, path=OLD_PATH),
    "everything": Wire(
        ask(
            seconds=10,
            resolution="1080p",
            aspect_ratio="1:1",
            generate_audio=True,
            negative_prompt="blur",
            extra={"voice_list": [{"voice_id": "v1"}], "duration": "60", "n": 4},
        ),
        {
            **OLD,
            "model_name": "kling-v2-6",
            "mode": "pro",
            "duration": "10",
            "aspect_ratio": "1:1",
            "sound": "on",
            "negative_prompt": "blur",
            "voice_list": [{"voice_id": "v1"}],
            "callback_url": HOOK,
        },
        path=OLD_PATH,
        task={"model": "kling-2.6", "callback_url": HOOK},
    ),
    "first and last frame": Wire(
        ask(first_frame=Media(key="cat"), last_frame=Media(url=Z), generate_audio=False),
        {**OLD, "image": BARE, "image_tail": Z, "sound": "off", "multi_shot": False},
        path="/v1/videos/image2video",
    ),
    "references": Wire(
        ask(seconds=5, reference_images=(Media(url=A), Media(key="cat"))),
        {
            "model_name": "kling-v1-6",
            "prompt": "a paper boat",
            "image_list": [{"image": A}, {"image": BARE}],
            "duration": "5",
            "external_task_id": "attempt_1",
        },
        path="/v1/videos/multi-image2video",
        task={"model": "kling-v1-6"},
    ),
}

WORDS = {
    "submitted": Status.queued,
    "processing": Status.in_progress,
    "succeeded": Status.completed,
    "succeed": Status.completed,
    "failed": Status.failed,
}


def accepted(ref: Any) -> Any:
    return recorded("kling", "v2_t2v_3_0") | {"data": {"id": ref, "status": "submitted"}}


def accepted_old(ref: Any) -> Any:
    return recorded("kling", "v1_t2v_apikey") | {"data": {"task_id": ref, "task_status": "submitted"}}


UPSTREAMS = (
    Upstream(
        "kling",
        Kling,
        FakeKling,
        WIRES,
        WORDS,
        accepted,
        prefix="",
        model=MODEL,
        moderation=(400, "Blocked by the content security policy", "1301"),
        credit=(429, "Resource pack exhausted or expired", "1102"),
        cancels=False,
        streams=False,
        idempotent=({},),
    ),
    Upstream(
        "kling_v1",
        Kling,
        FakeKlingV1,
        OLD_WIRES,
        WORDS,
        accepted_old,
        config={"api": "v1"},
        prefix="",
        model=MODEL,
        moderation=(400, "The prompt contains sensitive content", "1300"),
        credit=(429, "Account in arrears", "1101"),
        cancels=False,
        streams=False,
        idempotent=({},),
    ),
)
