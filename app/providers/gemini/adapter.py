"""Google's Gemini API: Omni by its Interactions (`omni.py`), Veo by `predictLongRunning` (`veo.py`). Sources:
google-genai 2.34.0 (the last one with Veo), 3.4.0 and 3.6.1, @google/genai 3.3.0 and @ai-sdk/google 4.0.121, recorded
on 2026-11-25 (`tests/recordings/google.json`), and the vendor's pages as of 2026-11-21. Not tried live.

Quirks: the model's name decides on the API, and so does a task's id: that of an operation is a path. Veo takes uploads
only, within the request, and 8 seconds are the only length with references, a last frame, 1080p or 4k. A file is
fetched with the key, for two days; one of Omni may have to be processed first, and may come within the answer although
its address was asked for. A filtered video is an end without a file. Errors hide the time to wait in `details`, and a
403 is also the answer for a file that has expired. Callbacks only mean "poll now"; their signature is not checked.
Inferred: that an extension by Veo is asked for as 8 s of 720p, whatever it adds, and that Veo takes a seed, which one
of Google's clients refuses and another one sends; that Omni makes 8 s where the request has no length, reads any https
address, of the type of its suffix, and delivers by address at this host; that an interaction that a cancel has stopped
is not charged; that a quota by the day, FAILED_PRECONDITION and depleted credits at a submit are matters of the
account; that "support code" in the message of a failure means a filter.
"""

import re
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.providers.answers import segment
from app.providers.base import Task
from app.providers.gemini import omni, veo
from app.providers.gemini.google import Google, failed
from app.video import Media, Output, Progress, Status

FILE = re.compile(r"(?P<file>/v\w+/files/[\w\-]+)(?::download)?", re.ASCII)
"""Path of a file of the Files API, or of its bytes."""
MODELS = {**omni.MODELS, **veo.MODELS}


class Gemini(Google):
    kind = "gemini"
    title = "Google Gemini API"
    key_variables = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    key_page = "https://aistudio.google.com/apikey"
    prices_read = date(2026, 11, 25)
    callbacks = True
    models = MODELS

    class Config(Google.Config):
        api_key: SecretStr = Field(min_length=1)
        """From Google AI Studio."""
        base_url: str = "https://generativelanguage.googleapis.com"
        api_version: str | None = Field(None, pattern=r"^v\w{1,20}$")
        """Version of both APIs; unset: v1 for Omni, v1beta for Veo."""

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        refusal = None if veo.serves(task.model) else omni.refusal(task.request)
        if refusal is not None:
            raise errors.UpstreamRejected(refusal, provider=self.name)
        uri = await self._source_uri(task)

        async def blob(media: Media) -> tuple[str, str]:
            return await self._blob(media, task)

        if not veo.serves(task.model):
            return await omni.body(task, blob, uri)
        return await veo.body(task, blob, uri, is_known=task.model in self.models)

    @property
    def _interactions(self) -> str:
        return f"/{self.config.api_version or 'v1'}/interactions"

    @property
    def _veo_version(self) -> str:
        return self.config.api_version or "v1beta"

    def _model_path(self, model: str) -> str:
        return f"/{self._veo_version}/models/{segment(model)}"

    def _operation_path(self, task: Task) -> str:
        name = segment(task.ref, safe="/" if veo.OPERATION.fullmatch(task.ref or "") else "")
        return f"/{self._veo_version}/{name}"

    async def _source_uri(self, task: Task) -> str | None:
        """Address of the source at the vendor, by a poll of the task that made it; None if its id or its bytes are
        sent."""
        made_by = task.source_ref
        if made_by is None or not (veo.serves(task.model) or veo.OPERATION.fullmatch(made_by)):
            return None
        try:
            progress = await self.poll(replace(task, model="", ref=made_by))
        except errors.UpstreamGone as error:
            raise self._no_source() from error
        if progress.output is None or progress.output.url is None:
            raise self._no_source()
        return progress.output.url

    # Reading answers

    def _operation(self, task: Task, operation: dict[str, Any]) -> Progress:
        status, raw = veo.state(operation)
        message, code = veo.failure(operation)
        progress = self.learned(task, operation, status, raw, first=veo.FILE_PATHS, error=message, code=code)
        if progress.output is None or progress.output.url is None:
            return progress
        output = Output(url=self._content_url(progress.output.url), authenticated=True)
        return progress.model_copy(update={"output": output})

    async def _file(self, url: str, raw: str) -> Progress:
        """The end of an interaction whose file has an address: the Files API may still process it, or have failed."""
        named = FILE.fullmatch(httpx.URL(url).path)
        if named is not None:
            file = self.json("poll", await self.call("poll", "GET", named["file"]))
            if file.get("state") == "PROCESSING":
                return Progress(status=Status.in_progress, raw_status="PROCESSING")
            if file.get("state") == "FAILED":
                error = file.get("error")
                return failed(raw, self.failure("failed", error.get("message") if isinstance(error, dict) else error))
        output = Output(url=self._content_url(url), authenticated=True)
        return Progress(status=Status.completed, raw_status=raw, output=output)

    def _content_url(self, url: str) -> str:
        """The address of a file's bytes: of the Files API at the configured base URL, which may be a proxy's."""
        named = FILE.fullmatch(httpx.URL(url).path)
        return url if named is None else f"{self.config.base_url}{named['file']}:download?alt=media"
