"""SGLang's `/v1/videos`: whole seconds, a DELETE that stops nothing, and files that may lie in a cloud."""

from typing import Any

from starlette.responses import Response

from app.providers.openai import OpenAI
from app.video import Media
from fakes.openai import OPENAI_WORDS, FakeOpenAI, openai_accepted
from fakes.server import Call, Job, as_json
from fakes.upstream import BASIC, CAT_PART, FORM, PICTURE, TEXT, UPLOADED, Upstream, Wire, ask


class FakeSGLang(FakeOpenAI):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unstoppable: list[Job] = []
        """Jobs that were deleted and are worked on nevertheless."""

    def create(self, call: Call) -> Response:
        asked = call.fields
        if not asked.get("prompt"):
            return as_json({"detail": "prompt is required"}, 400)
        seconds = asked.get("seconds", 4)
        if not (seconds.isdigit() if call.form is not None and isinstance(seconds, str) else isinstance(seconds, int)):
            return as_json({"detail": "Invalid request body: seconds: Input should be a valid integer"}, 400)
        if not isinstance(asked.get("input_reference", ""), str) and call.form is None:
            return as_json({"detail": "Invalid request body: input_reference: Input should be a valid string"}, 400)
        return as_json(self.document(self.job(f"9b1d{len(self.jobs) + 1}", asked)))

    def poll(self, job: Job, call: Call) -> Response:
        return as_json(self.document(self.polled(job)))

    def cancel(self, job: Job, call: Call) -> Response:
        self.unstoppable.append(self.jobs.pop(job.ref))
        return as_json({**self.document(job), "status": "deleted"})

    def content(self, job: Job, call: Call) -> Response:
        if "variant" in call.query and not call.query.removeprefix("variant=").isdigit():
            return as_json({"detail": "Video variant not found"}, 404)
        if url := job.raw.get("url"):
            return as_json(
                {"detail": f"Video has been uploaded to cloud storage. Please use the cloud URL: {url}"}, 400
            )
        if job.status != self.done:
            return as_json({"detail": "Generation is still in-progress"}, 404)
        return Response(self.file, media_type="video/mp4")

    def elsewhere(self, ref: str, url: str) -> None:
        self.finish(ref)
        self.jobs[ref].raw["url"] = url

    def refuse(self, status: int, message: str, code: str | None = None) -> Response:
        return as_json({"detail": message}, status)

    def document(self, job: Job) -> dict[str, object]:
        error = {"message": job.message} if job.status == self.failed else None
        done = job.status == self.done
        where = {"file_path": f"outputs/{job.ref}.mp4", "num_outputs": 1} if done else {}
        return {"url": None, **super().document(job), "quality": "standard", "error": error, **where}


WIRES = {
    "text": Wire(TEXT, {**BASIC, "seconds": 8, "size": "1280x720"}),
    "picture": Wire(PICTURE, {**BASIC, "reference_url": "https://x.example/a.png"}),
    "upload": Wire(UPLOADED, form=[*FORM, ("seconds", "8"), ("input_reference", CAT_PART)]),
    "video": Wire(
        ask(reference_video=Media(url="https://x.example/f.mp4"), expand_prompt=True),
        {**BASIC, "video_url": "https://x.example/f.mp4", "enhance_prompt": True},
    ),
}

UPSTREAMS = (
    Upstream(
        "sglang",
        OpenAI,
        FakeSGLang,
        WIRES,
        OPENAI_WORDS,
        openai_accepted,
        config={"flavor": "sglang"},
        stops=False,
    ),
)
