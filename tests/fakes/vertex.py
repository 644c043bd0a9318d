"""Google's Vertex AI, whose answers are those of `tests/recordings/google.json` with other ids and addresses; the host
that exchanges the assertion of a service account for a token; and the metadata server of a machine."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.responses import Response

from app.providers.gemini import Vertex
from app.video import Media, Operation
from fakes.gemini import (
    FORMAT,
    IMAGE,
    IMAGE_BYTES,
    KEPT,
    OMNI,
    OMNI_FIELDS,
    OMNI_WORDS,
    PREDICT,
    PROMPT,
    SHAPE,
    SHARED,
    VEO_PARAMETERS,
    VEO_SHAPE,
    VEO_WIDE,
    VEO_WORDS,
    WIDE,
    FakeGemini,
    blocks,
)
from fakes.recorded import recorded
from fakes.server import Call, Job, as_json, segments
from fakes.upstream import HOOK, MADE, VIDEO, Upstream, Wire, ask

VEO = "veo-3.1-lite-generate-001"
FETCH = ":fetchPredictOperation"
PARAMETERS = VEO_PARAMETERS | {"generateAudio", "compressionQuality", "resizeMode", "storageUri", "pubsubTopic", "fps"}
CAPITALS = {"compressionQuality": ("OPTIMIZED", "LOSSLESS"), "resizeMode": ("PAD", "CROP")}
AUDIENCE = "https://oauth2.googleapis.com/token"
EMAIL = "gateway@my-proj.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
MACHINE = "/computeMetadata/v1/instance/service-accounts/default/"


def new_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65_537, key_size=2_048)


@cache
def account_key() -> RSAPrivateKey:
    """The private key of the service account that the fake knows."""
    return new_key()


def pem(key: Any) -> str:
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return content.decode()


def key_file(folder: Path, name: str = "account.json", **fields: Any) -> Path:
    """The key file of that service account, with these fields instead of its own."""
    values = {"type": "service_account", "project_id": "my-proj", "private_key_id": "k1", "client_email": EMAIL}
    values |= {"private_key": pem(account_key()), "token_uri": AUDIENCE, **fields}
    path = folder / name
    path.write_text(json.dumps(values), "utf-8")
    return path


class FakeVertex(FakeGemini):
    """Takes the key in express mode, and the tokens it has issued for a project: to a machine, and in exchange for an
    assertion that the service account has signed."""

    verbs = (*FakeGemini.verbs, "token")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(inline=True, **kwargs)
        self.tokens: list[str] = []
        """Issued ones that are valid, the last one at the end."""
        self.lives_s: Any = 3_599

    def route(self, method: str, path: str) -> tuple[str, str]:
        parts = segments(path)
        if path == "/token" or parts[0] == "computeMetadata":
            return "token", parts[0]
        parts = parts[1:] if parts[1:2] != ["projects"] else parts[5:]
        match method, parts:
            case "POST", ["publishers", "google", "models", name] if name.endswith(PREDICT):
                return "submit", name.removesuffix(PREDICT)
            case "POST", ["publishers", "google", "models", name] if name.endswith(FETCH):
                return "poll", ""
            case "POST", ["interactions"]:
                return "submit", ""
            case "POST", ["interactions", ref, "cancel"]:
                return "cancel", ref
            case "GET", ["interactions", ref]:
                return "poll", ref
        return "other", path

    def routed(self, call: Call) -> tuple[str, str]:
        """The task of a poll of Veo is in its body; a poll that accepts a video is one for the file."""
        verb, subject = super().routed(call)
        if verb != "poll":
            return verb, subject
        subject = str(call.fields.get("operationName", subject))
        return "content" if call.headers["accept"].startswith("video/") else "poll", subject

    def allowed(self, call: Call) -> bool:
        if self.route(call.method, call.path)[0] == "token":
            return True
        sent = call.headers.get("authorization")
        if segments(call.path)[1] == "projects" and sent is not None:
            return sent in [f"Bearer {token}" for token in self.tokens] and "x-goog-api-key" not in call.headers
        return call.headers.get("x-goog-api-key") == self.key and sent is None

    def answer(self, verb: str, subject: str, call: Call) -> Response:
        match verb:
            case "token":
                return self.issued(call) if subject == "token" else self.of_machine(call)
            case "poll" | "content" if subject in self.jobs:
                job = self.jobs[subject] if verb == "content" else self.polled(self.jobs[subject])
                return as_json(self.operation(job, call) if "/operations/" in subject else self.shown(job, call))
            case "submit" | "cancel":
                return super().answer(verb, subject, call)
        return self.refuse(404, "Requested entity was not found.")

    # Tokens

    def issued(self, call: Call) -> Response:
        form = {name: values[0] for name, values in parse_qs(call.json.decode()).items()}
        head, claims, signature = form["assertion"].split(".")
        said = json.loads(decoded(claims))
        try:
            public = account_key().public_key()
            public.verify(decoded(signature), f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            return as_json({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        if (said["iss"], said["aud"]) != (EMAIL, AUDIENCE) or said["exp"] - said["iat"] != 3_600:
            return as_json({"error": "invalid_grant", "error_description": "Invalid JWT."}, 400)
        return self.new_token()

    def of_machine(self, call: Call) -> Response:
        if call.headers.get("metadata-flavor") != "Google":
            return Response("Missing Metadata-Flavor:Google header.", 403)
        if call.path == MACHINE:  # google-auth asks for the account before it asks for a token
            return as_json({"aliases": ["default"], "email": EMAIL, "scopes": [SCOPE]})
        return self.new_token() if call.path == f"{MACHINE}token" else Response("Not found", 404)

    def new_token(self) -> Response:
        self.tokens.append(f"ya29.t0ken-{len(self.calls['token'])}")
        answer = {"access_token": self.tokens[-1], "expires_in": self.lives_s, "token_type": "Bearer"}
        return as_json(answer)

    # Omni

    def interact(self, call: Call) -> Response:
        shape = call.fields.get("response_format", {})
        if shape.get("delivery") == "uri" and "gcs_uri" not in shape:
            return self.refuse(400, "gcs_uri is required.")
        if set(call.fields) - OMNI_FIELDS | {"webhook_config"} & set(call.fields):
            return self.refuse(400, "Request contains an invalid argument.")
        return super().interact(call)

    def shown(self, job: Job, call: Call) -> dict[str, Any]:
        answer = super().shown(job, call)
        if job.status == self.done and "uri" in job.raw:
            answer["steps"][-1]["content"] = [{"type": "video", "mime_type": "video/mp4", "uri": job.raw["uri"]}]
        return answer

    # Veo

    def predict(self, model: str, call: Call) -> Response:
        [instance], parameters = call.fields.get("instances") or [{}], call.fields.get("parameters", {})
        unknown = set(parameters) - PARAMETERS | set(call.fields) - {"instances", "parameters", "labels"}
        unknown |= {name for name, words in CAPITALS.items() if parameters.get(name, words[0]) not in words}
        unknown |= set(instance.get("video", {})) - {"bytesBase64Encoded", "gcsUri", "mimeType"}
        references, frames = "referenceImages" in instance, {"image", "lastFrame", "video"} & set(instance)
        long = references or "lastFrame" in instance or parameters.get("resolution", "720p") != "720p"
        if unknown or not instance.get("prompt") or (references and frames):
            return self.refuse(400, f"Request contains an invalid argument: {min(unknown, default='instances')}.")
        if long and parameters.get("durationSeconds", 8) != 8:
            return self.refuse(400, "Your use case is currently not supported.")
        parts = segments(call.path)[1:5]
        place = "/".join(parts) if parts[0] == "projects" else "projects/p/locations/global"
        name = f"{place}/publishers/google/models/{model}/operations/op{len(self.jobs) + 1}"
        job = self.job(name, {"model": model, **call.fields})
        return as_json({**recorded("google", "vertex_veo_t2v_minimal"), "name": job.ref})

    def operation(self, job: Job, call: Call) -> dict[str, Any]:
        answer: dict[str, Any]
        if job.status == self.done and "uri" in job.raw:
            answer = recorded("google", "vertex_veo_poll_success_gcs")
            answer["response"]["videos"] = [{"gcsUri": job.raw["uri"], "mimeType": "video/mp4"}]
        elif job.status == self.done:
            answer = recorded("google", "vertex_veo_poll_success_bytes")
            answer["response"]["videos"][0]["bytesBase64Encoded"] = base64.b64encode(self.file).decode()
        elif job.status == "filtered":
            answer = recorded("google", "vertex_veo_poll_filtered")
        elif job.status == self.failed:
            answer = recorded("google", "vertex_veo_poll_error_internal")
            answer["error"]["message"] = job.message
        else:
            answer = recorded("google", "vertex_veo_poll_pending_metadata")
        return {**answer, "name": job.ref, **job.raw.get("shown", {})}

    def unauthorized(self) -> Response:
        return as_json(recorded("google", "vertex_veo_error_401_unauthenticated"), 401)


class FakeVertexVeo(FakeVertex):
    """The same, in the words that the adapter has for an operation."""

    waiting = working = "running"
    done = "done"


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


INLINE = {"delivery": "inline"}
PATH = "/v1beta1/interactions"

OMNI_WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"model": OMNI, "input": "żółw 🐢", "response_format": {**WIDE, **INLINE}, **KEPT}, path=PATH
    ),
    "everything": Wire(
        ask(
            seconds=15,
            aspect_ratio="9:16",
            resolution="2160p",
            seed=0,
            n=2,
            extra={"labels": {"team": "a"}, "response_format": {"gcs_uri": "gs://b/"}, "webhook_config": {"uris": []}},
        ),
        {
            "model": OMNI,
            "input": "a paper boat",
            "response_format": {**FORMAT, **INLINE, "aspect_ratio": "9:16", "resolution": "4k", "duration": "15s"},
            "generation_config": {"seed": 0},
            "labels": {"team": "a"},
            **KEPT,
        },
        path=PATH,
        task={"callback_url": HOOK},
    ),
    "references": Wire(
        ask(reference_images=(Media(url="https://x.example/a.jpg"), Media(key="cat"))),
        {
            "model": OMNI,
            "input": blocks({"type": "image", "uri": "https://x.example/a.jpg", "mime_type": "image/jpeg"}, IMAGE),
            "generation_config": {"video_config": {"task": "reference_to_video"}},
            "response_format": {**SHAPE, **INLINE},
            **KEPT,
        },
        path=PATH,
    ),
    "edit": Wire(
        ask(operation=Operation.edit, source=Media(video_id="video_ours")),
        {
            "model": OMNI,
            "input": "a paper boat",
            "previous_interaction_id": "video_9/?",
            "generation_config": {"video_config": {"task": "edit"}},
            "response_format": {**FORMAT, **INLINE},
            **KEPT,
        },
        path=PATH,
        task=MADE,
    ),
    "another version": Wire(
        ask(),
        {"model": OMNI, "input": "a paper boat", "response_format": {**WIDE, **INLINE}, **KEPT},
        path="/v1/interactions",
        config={"api_version": "v1"},
    ),
}

SOUND = {"generateAudio": True}
MODELS = "/v1beta1/publishers/google/models"
VEO_PATH = f"{MODELS}/{VEO}{PREDICT}"

VEO_WIRES = {
    "prompt only": Wire(
        ask("żółw 🐢"), {"instances": [{"prompt": "żółw 🐢"}], "parameters": {**VEO_WIDE, **SOUND}}, path=VEO_PATH
    ),
    "everything": Wire(
        ask(
            seconds=4,
            aspect_ratio="9:16",
            negative_prompt="blur",
            seed=7,
            expand_prompt=True,
            generate_audio=False,
            n=2,
            extra={
                "personGeneration": "allow_adult",
                "resizeMode": "pad",
                "compressionQuality": "lossless",
                "labels": {"team": "a"},
                "sampleCount": 4,
                "seed": 9,
                "generateAudio": True,
            },
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
                "generateAudio": False,
                "personGeneration": "allow_adult",
                "resizeMode": "PAD",
                "compressionQuality": "LOSSLESS",
            },
            "labels": {"team": "a"},
        },
        path=VEO_PATH,
        task={"callback_url": HOOK},
    ),
    "first and last frame": Wire(
        ask(resolution="1080p", first_frame=Media(key="cat"), last_frame=Media(key="cat")),
        {
            "instances": [{**PROMPT, "image": IMAGE_BYTES, "lastFrame": IMAGE_BYTES}],
            "parameters": {**VEO_SHAPE, "resolution": "1080p", **SOUND},
        },
        path=VEO_PATH,
    ),
    "extension of an upload": Wire(
        ask(operation=Operation.extend, source=Media(key="clip")),
        {
            "instances": [
                {
                    **PROMPT,
                    "video": {"bytesBase64Encoded": base64.b64encode(VIDEO).decode(), "mimeType": "video/mp4"},
                }
            ],
            "parameters": {**VEO_SHAPE, **SOUND},
        },
        path=VEO_PATH,
    ),
    "a model that is not in the table": Wire(
        ask(), {"instances": [PROMPT]}, path=f"{MODELS}/veo-4%2F..%3F{PREDICT}", task={"model": "veo-4/..?"}
    ),
}

UPSTREAMS = (
    Upstream(
        "vertex",
        Vertex,
        FakeVertex,
        OMNI_WIRES,
        OMNI_WORDS,
        lambda ref: {"id": ref},
        model=OMNI,
        addressed=False,
        **SHARED | {"file_query": "stream=false"},
    ),
    Upstream(
        "vertex-veo",
        Vertex,
        FakeVertexVeo,
        VEO_WIRES,
        VEO_WORDS,
        lambda ref: {"name": ref},
        model=VEO,
        cancels=False,
        worded=False,
        addressed=False,
        **SHARED | {"file_query": ""},
    ),
)
