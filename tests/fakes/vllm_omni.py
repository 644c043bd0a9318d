"""vLLM-Omni's `/v1/videos`: forms only, a failed job is an error answer, and nothing survives a restart."""

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from app.providers.openai import OpenAI
from app.video import Media
from fakes.openai import OPENAI_WORDS, FakeOpenAI, openai_accepted
from fakes.server import Call, Job, as_json
from fakes.upstream import CAT_PART, FORM, FULL, PICTURE, TEXT, UPLOADED, VIDEO_PART, Upstream, Wire, ask


class FakeVllmOmni(FakeOpenAI):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.draining = False
        """While True, a DELETE is answered with 409."""

    def restart(self) -> None:
        """Jobs live in memory."""
        self.jobs.clear()

    def create(self, call: Call) -> Response:
        form = dict(call.form or [])
        if not form.get("prompt"):
            missing = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
            return as_json({"detail": [missing]}, 422)
        if not str(form.get("seconds", "4")).isdigit():
            return as_json({"detail": [{"loc": ["body", "seconds"], "msg": "String should match pattern"}]}, 422)
        return as_json(self.document(self.job(f"video_gen_{len(self.jobs) + 1}", form)))

    def poll(self, job: Job, call: Call) -> Response:
        document = self.document(self.polled(job))
        if job.status != self.failed:
            return as_json(document)
        status = job.code if isinstance(job.code, int) else HTTPStatus.INTERNAL_SERVER_ERROR
        return as_json({**document, "error": {"code": job.code or int(status), "message": job.message}}, status)

    def cancel(self, job: Job, call: Call) -> Response:
        if self.draining:
            return as_json({"detail": "Video cancellation is still in progress"}, 409)
        return super().cancel(job, call)

    def content(self, job: Job, call: Call) -> Response:
        if job.status == self.failed:
            return as_json({"detail": "Video generation failed"}, 422)
        if job.status != self.done:
            return as_json({"detail": "Generation is still in-progress"}, 404)
        return Response(self.file, media_type="video/mp4")

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return as_json({"detail": message}, status)

    def document(self, job: Job) -> dict[str, object]:
        return {**super().document(job), "quality": "standard", "media_type": "video/mp4"}


WIRES = {
    "text": Wire(TEXT, form=[*FORM, ("seconds", "8"), ("size", "1280x720")]),
    "everything": Wire(
        FULL.model_copy(update={"seconds": 4}),
        form=[
            *FORM,
            ("seconds", "4"),
            ("aspect_ratio", "16:9"),
            ("short_edge", "720"),
            ("negative_prompt", "blur"),
            ("seed", "0"),
            ("generate_sound", "false"),
            ("loop", "true"),
            ("expand_prompt", "true"),
            ("user", "u1"),
            ("camera", '{"pan": 1.5, "shake": false}'),
            ("tags", '["a", "b"]'),
            ("steps", "30"),
            ("hd", "true"),
            ("x%22%0D%0A", "y"),
        ],
    ),
    "picture": Wire(PICTURE, form=[*FORM, ("image_reference", '{"image_url": "https://x.example/a.png"}')]),
    "upload": Wire(UPLOADED, form=[*FORM, ("seconds", "8"), ("input_reference", CAT_PART)]),
    "uploads": Wire(
        ask(first_frame=Media(key="cat"), reference_video=Media(key="clip")),
        form=[*FORM, ("input_references", CAT_PART), ("input_references", VIDEO_PART)],
    ),
}

UPSTREAMS = (
    Upstream("vllm-omni", OpenAI, FakeVllmOmni, WIRES, OPENAI_WORDS, openai_accepted, config={"flavor": "vllm-omni"}),
)
