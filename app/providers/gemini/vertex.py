"""Google's Vertex AI: Veo by `predictLongRunning` and Omni by the Interactions, with the models of a project in Google
Cloud. Sources: google-genai 3.4.0 and @ai-sdk/google-vertex 5.0.141, recorded on 2026-11-25
(`tests/recordings/google.json`), and the vendor's pages as of 2026-11-21. Not tried live.

Quirks: an operation of Veo is polled by a POST that names it. The file comes within the answer, as base64, from which
it is decoded while it is read; with a bucket (`storageUri`) it would be put there instead, where the gateway cannot
read it. Words of Veo's parameters are in capitals, but those of `personGeneration` are not. Credentials are an API key
(express mode, without a project), the key file of a service account, or the metadata server of a machine in Google's
cloud; the two latter give access tokens, which live an hour (`tokens.py`) and are fetched before they end, and once
after a 401. A 401 is certainly a refusal, so a submit that got one is sent again with the new token.
Inferred: the path of Interactions in express mode; that Omni delivers within the answer here, where an address needs a
bucket; that an operation still has its file when a later request starts from its video, which is then read from there
and sent along; and, as at the Gemini API, that an extension is asked for as 8 s of 720p.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self

import httpx
from pydantic import Field, SecretStr, model_validator

from app import errors, net
from app.media.uploads import Upload
from app.providers.answers import object_of, secret_pattern, segment
from app.providers.base import (
    MAX_DATA_URL_BYTES,
    OPEN,
    Download,
    Outbound,
    ProviderConfig,
    Task,
    begin_unrecorded,
    data_url_of,
)
from app.providers.gemini import omni, tokens, veo
from app.providers.gemini.google import Google
from app.video import Failure, Media, Output, Progress, Status

METADATA = ip_network("169.254.169.254/32")
"""The link-local address of metadata servers: no other client of the gateway may reach it."""
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
METADATA_S = 5
BUCKET_FIELDS = ("storageUri", "gcsOutputDirectory")
BUCKET = "gs://"
MODELS = {**omni.MODELS, **veo.CLOUD_MODELS}


class Vertex(Google):
    kind = "vertex"
    title = "Google Vertex AI"
    key_page = "https://console.cloud.google.com/iam-admin/serviceaccounts"
    prices_read = date(2026, 11, 25)
    models = MODELS
    any_veo = veo.CLOUD_ANYTHING
    key_origins = ("base_url", "token_url")

    class Config(Google.Config):
        project: str = Field(pattern=r"^(?:[a-z0-9][a-z0-9.:\-]{0,99})?$")
        """Id of the project. Not needed with `CREDENTIALS_FILE`, which has one, and not taken with `API_KEY`."""
        api_key: SecretStr | None = None
        """Key for express mode, instead of a project."""
        location: str = Field("global", pattern=r"^[a-z][a-z0-9\-]{0,62}$")
        """Region that makes the videos."""
        credentials_file: Path | None = None
        """JSON key of a service account; without it and `API_KEY`, the metadata server is asked."""
        base_url: str = ""
        """URL prefix of the paths in the vendor's documentation; unset: by `LOCATION`."""
        token_url: str = "https://oauth2.googleapis.com"  # noqa: S105  # an address
        """The host at which a service account gets its tokens."""
        metadata_url: str = "http://169.254.169.254"
        """The metadata server of the machine."""
        api_version: str = Field("v1beta1", pattern=r"^v\w{1,20}$")
        """Version of both APIs."""

        @model_validator(mode="before")
        @classmethod
        def _with_project(cls, values: Any) -> Any:
            """The settings without empty ones, which a compose file passes on for unset ones, and with the project."""
            if not isinstance(values, dict):
                return values
            given = {name: value for name, value in values.items() if value not in ("", None)}
            file = given.get("credentials_file")
            if "api_key" in given:
                if "project" in given or file is not None:
                    raise ValueError("expected either API_KEY alone, or PROJECT and perhaps CREDENTIALS_FILE")
                return {**given, "project": ""}
            if file is None:
                return given
            try:
                found = tokens.read_account(Path(str(file))).project
            except ValueError as error:
                raise ValueError(f"CREDENTIALS_FILE: {error}") from None
            return ({"project": found} if found is not None else {}) | given

        @model_validator(mode="after")
        def _with_host(self) -> Self:
            host = "aiplatform" if self.location == "global" else f"{self.location}-aiplatform"
            self.base_url = self.base_url or f"https://{host}.googleapis.com"
            return self

        @property
        def credentials(self) -> str:
            if self.api_key is not None:
                return "API_KEY"
            return "CREDENTIALS_FILE" if self.credentials_file is not None else "METADATA_URL"

    config: Config

    def __init__(self, name: str, config: ProviderConfig, outbound: Outbound = OPEN) -> None:
        super().__init__(name, config, outbound)
        self._token: tokens.Token | None = None
        self._renewal = asyncio.Lock()
        self._allow_networks = outbound.allow_networks
        self._hide("")

    async def prepare(self, task: Task) -> dict[str, Any]:
        refusal = self._refusal(task)
        if refusal is not None:
            raise errors.UpstreamRejected(refusal, provider=self.name)
        await self._have_token()
        own = task.source_ref if self._goes_by_id(task) else None

        async def blob(media: Media) -> tuple[str, str]:
            return await self._own_video(task) if media.video_id is not None else await self._blob(media, task)

        plain = replace(task, callback_url=None, source_ref=own)
        if not veo.serves(task.model):
            return await omni.body(plain, blob, None, delivery="inline")
        return await veo.cloud_body(plain, blob, is_known=task.model in self.models)

    async def submit_call(self, task: Task, method: str, path: str, **kwargs: Any) -> httpx.Response:
        used = await self._have_token()
        try:
            return await super().submit_call(task, method, path, **kwargs)
        except errors.UpstreamAccount as error:
            if error.upstream_status != 401 or used is None:
                raise
        await self._have_token(instead_of=used)
        return await super().submit_call(replace(task, begin=begin_unrecorded), method, path, **kwargs)

    async def call(
        self,
        verb: Literal["prepare", "poll", "list", "check", "cancel", "character"],
        method: str,
        path: str,
        **kwargs: Any,
    ) -> httpx.Response:
        used = await self._have_token()
        try:
            return await super().call(verb, method, path, **kwargs)
        except errors.UpstreamAccount as error:
            if error.upstream_status != 401 or used is None:
                raise
        await self._have_token(instead_of=used)
        return await super().call(verb, method, path, **kwargs)

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        used = await self._have_token()
        async with AsyncExitStack() as stack:
            try:
                download = await stack.enter_async_context(super().fetch(task, output))
            except errors.UpstreamAccount as error:
                if error.upstream_status != 401 or used is None:
                    raise
                await self._have_token(instead_of=used)
                download = await stack.enter_async_context(super().fetch(task, output))
            yield download

    def poll_body(self, task: Task) -> dict[str, Any] | None:
        return {"operationName": task.ref} if veo.is_operation(task) else None

    @property
    def auth(self) -> dict[str, str]:
        if self._token is not None:
            return {"authorization": f"Bearer {self._token.value}"}
        return super().auth

    @property
    def fingerprint(self) -> str:
        if self.config.api_key is not None:
            return super().fingerprint
        # All accounts of a project see its tasks.
        return hashlib.sha256(f"project {self.config.project}".encode()).hexdigest()[:12]

    @property
    def _place(self) -> str:
        """Prefix of all paths: the version, and the project except in express mode."""
        project, location = self.config.project, self.config.location
        return f"/{self.config.api_version}" + (f"/projects/{project}/locations/{location}" if project else "")

    @property
    def _interactions(self) -> str:
        return f"{self._place}/interactions"

    def _model_path(self, model: str) -> str:
        return f"{self._place}/publishers/google/models/{segment(model)}"

    def _operation_path(self, task: Task) -> str:
        """The path for the model that the operation's name has, which has the project also in express mode."""
        named = veo.OPERATION.fullmatch(task.ref or "")
        known = named is not None and named["model"].startswith("projects/")
        model = f"/{self.config.api_version}/{named['model']}" if named and known else self._model_path(task.model)
        return f"{model}:fetchPredictOperation"

    # Tokens

    async def _have_token(self, *, instead_of: tokens.Token | None = None) -> tokens.Token | None:
        """Fetch an access token if there is none, or it ends soon, or it is `instead_of`; None in express mode."""
        if self.config.api_key is not None:
            return None
        async with self._renewal:
            token = self._token
            if token is None or token is instead_of or token.renew_at <= time.monotonic():
                token = await self._new_token()
                self._hide(token.value)
                self._token = token
            return token

    async def _new_token(self) -> tokens.Token:
        now = time.monotonic()
        file = self.config.credentials_file
        response = await (self._of_machine() if file is None else self._exchanged(file))
        if not response.is_success:
            raise self._refused(response)
        token = tokens.token_of(object_of(response), now)
        if token is None:
            raise errors.UpstreamUnavailable(f"{self.name} got an answer without a token", provider=self.name)
        return token

    async def _exchanged(self, file: Path) -> httpx.Response:
        """The answer to an assertion of the service account. The file is read anew: its key may have been replaced."""
        try:
            account = await asyncio.to_thread(tokens.read_account, file)
            assertion = await asyncio.to_thread(tokens.assertion, account, int(time.time()))
        except ValueError as error:
            message = f"{self.name} has no usable credentials: {error}"
            raise errors.UpstreamAccount(message, provider=self.name) from error
        form = {"grant_type": tokens.GRANT, "assertion": assertion}
        return await self._request("token", "POST", f"{self.config.token_url}/token", begin=None, data=form)

    async def _of_machine(self) -> httpx.Response:
        """The answer of the metadata server."""
        client = net.guarded(allow=(METADATA, *self._allow_networks), timeout_s=METADATA_S)
        try:
            url = f"{self.config.metadata_url}{METADATA_PATH}"
            request = client.build_request("GET", url, headers={"metadata-flavor": "Google"})
            async with client, asyncio.timeout(METADATA_S):
                response = await client.send(request, stream=True)
                try:
                    return await self._read("token", response)
                finally:
                    await response.aclose()
        except (httpx.RequestError, TimeoutError) as error:
            message = f"{self.name} finds no metadata server; outside of Google's cloud, set CREDENTIALS_FILE"
            raise errors.UpstreamUnreachable(message, provider=self.name) from error

    def _refused(self, response: httpx.Response) -> errors.UpstreamError:
        status, answer = response.status_code, object_of(response)
        details: dict[str, Any] = {"provider": self.name, "body": self.scrub(response.text)}
        if status == 429 or status >= 500:
            return errors.UpstreamUnavailable(f"{self.name} gets no token at present ({status})", **details)
        words = [str(answer[name]) for name in ("error", "error_description") if isinstance(answer.get(name), str)]
        text = self.scrub(": ".join(words)) or str(status)
        return errors.UpstreamAccount(f"{self.name} is refused a token: {text}", **details)

    def _hide(self, token: str) -> None:
        """Scrub this token and the one before it from all texts, and what looks like one."""
        secrets = [self._secret, token, self._token.value if self._token is not None else ""]
        known = [secret_pattern(secret).pattern for secret in secrets if secret]
        self._secret_pattern = re.compile("|".join([*known, tokens.SHAPES]))

    # Writing requests

    def _refusal(self, task: Task) -> str | None:
        """The reason why a request cannot be sent, or None."""
        if not veo.serves(task.model):
            return omni.refusal(task.request)
        named = next((name for name in BUCKET_FIELDS if name in task.request.extra), None)
        return f"{named}: the gateway does not read buckets; leave it out" if named is not None else None

    def _goes_by_id(self, task: Task) -> bool:
        """True if Omni made the source and makes this one: it takes the id of the interaction."""
        return task.source_ref is not None and not (
            veo.serves(task.model) or veo.OPERATION.fullmatch(task.source_ref) is not None
        )

    async def _own_video(self, task: Task) -> tuple[str, str]:
        """Content type and base64 of a video that this account made, read from the answer to a poll of its task."""
        if task.source_ref is None:
            raise self.foreign_source()
        made = replace(task, model="", ref=task.source_ref)
        try:
            output = (await self.poll(made)).output
            if output is None:
                raise self._no_source()
            async with self.fetch(made, output) as download:
                content = bytearray()
                async for chunk in download.chunks:
                    content += chunk
                    if len(content) > MAX_DATA_URL_BYTES:
                        break
        except errors.UpstreamGone as error:
            raise self._no_source() from error

        async def chunks() -> AsyncIterator[bytes]:
            yield bytes(content)

        upload = Upload("video.mp4", "video/mp4", len(content), chunks())
        url = await data_url_of(upload, provider=self.name)
        return "video/mp4", url.partition(",")[2]

    # Reading answers

    def _operation(self, task: Task, operation: dict[str, Any]) -> Progress:
        status, raw = veo.state(operation)
        output = veo.cloud_output(operation) if status is Status.completed else None
        if output is not None:
            return Progress(status=status, raw_status=raw, output=output)
        message, code = veo.failure(operation)
        return self.learned(task, operation, status, raw, error=message, code=code)

    def no_output(self, raw: str, job: dict[str, Any]) -> Failure:
        failure = super().no_output(raw, job)
        found = omni.video_of(job)
        files = [video.get("gcsUri") for video in veo.cloud_videos(job)] + ([found[1].get("uri")] if found else [])
        if not any(isinstance(file, str) and file.startswith(BUCKET) for file in files):
            return failure
        message = f"{self.name} has put the file into a bucket, which the gateway does not read; leave out `storageUri`"
        return failure.model_copy(update={"message": message})
