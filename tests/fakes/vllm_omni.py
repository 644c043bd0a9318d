"""vLLM-Omni's `/v1/videos`: forms only, a failed job is an error answer, and nothing survives a restart."""

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from fakes.openai import FakeOpenAI
from fakes.server import Call, Job, as_json


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
