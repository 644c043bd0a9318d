"""The contract between the job machine and an upstream, and what all providers share.

An adapter makes one HTTP call per verb: no loops, no sleeps, no retries, no database. It returns what it learned or
raises from the tree in `errors.py`; time, retries and money belong to the worker. On a submit the difference that
counts is between "certainly not accepted" (`UpstreamUnavailable`, `UpstreamRateLimited`, `UpstreamRejected`,
`UpstreamAccount`) and "nobody knows" (`UpstreamUnknown`): only the first may ever be sent again.
"""

import asyncio
import base64
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from app import errors, net
from app.media.uploads import CHUNK_BYTES, Upload
from app.providers.answers import address, declared_size, echo_of, is_usable, plain, retry_after_s
from app.telemetry import UPSTREAM_ERRORS, UPSTREAM_SECONDS, log
from app.video import Capabilities, Failure, Media, Output, Progress, Status, Submission, VideoRequest

MAX_ANSWER_BYTES = 8 * 2**20
"""An answer that is not a file is never longer than this."""
MAX_REDIRECTS = 5
MAX_DATA_URL_BYTES = 20 * 2**20
"""Of an upload that travels as text within JSON, and is in memory as a whole, several times."""
FILES_AT_ONCE = 16

CONTENT_POLICY_WORDS = ("moderation", "content_policy", "content policy", "safety", "sensitive", "nsfw", "blocked by")
CREDIT_WORDS = (
    "insufficient_quota",
    "insufficient_user_quota",
    "insufficient_balance",
    "insufficient balance",
    "insufficient credit",
    "billing",
)
CANCELLED_WORDS = ("cancelled", "canceled", "aborted", "deleted")

ReadMedia = Callable[[Media], AbstractAsyncContextManager["Upload"]]


@dataclass(frozen=True)
class Download:
    """A finished file on its way from an upstream. When `chunks` breaks off, the block of `fetch` that it is read in
    raises `UpstreamUnavailable`."""

    chunks: AsyncIterator[bytes]
    content_type: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Task:
    """What one attempt asks of an upstream; everything an adapter may know."""

    id: str
    """The attempt's id: the same on every try of the same submit, so it serves as idempotency key."""
    model: str
    """The upstream's own model name."""
    request: VideoRequest
    read: ReadMedia
    """Opens an uploaded file (`Media.key`) of the request."""
    now: datetime
    ref: str | None = None
    """The upstream's name for the task, once accepted."""
    submitted_at: datetime | None = None
    source_ref: str | None = None
    """The same upstream's name for the task that made `request.source`."""
    character_refs: tuple[str, ...] = ()
    """The same upstream's names for `request.characters`."""
    link: Callable[[Media], str | None] = lambda media: media.url
    """An address at which the upstream finds a medium: the caller's own, or a signed one of ours for an upload; None
    where this gateway has no public address."""
    callback_url: str | None = None
    """An unguessable address of ours for this attempt; a call there only means "poll now". None without a public
    address, and the upstream is not asked for calls then."""
    callback_secret: str = ""
    """For upstreams that insist on signing their calls."""

    async def data_url(self, media: Media, *, provider: str) -> str:
        """An upload as a `data:` URL, for pictures within JSON. Raises `UpstreamRejected` for one too large."""
        async with self.read(media) as upload:
            if upload.size > MAX_DATA_URL_BYTES:
                limit = f"{provider} takes uploads of at most {MAX_DATA_URL_BYTES // 2**20} MiB"
                raise errors.UpstreamRejected(f"{limit}; send the picture's https:// address", provider=provider)
            content = b"".join([chunk async for chunk in upload.chunks])
        return f"data:{upload.content_type};base64,{base64.b64encode(content).decode()}"


class ProviderConfig(BaseModel):
    """What every provider instance can be told, `GATEWAY_PROVIDERS__<NAME>__<FIELD>`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: str = ""
    enabled: bool = True
    """False takes the provider out without deleting its settings."""
    base_url: str = ""
    """What stands before the paths of the vendor's documentation."""
    api_key: SecretStr | None = None
    """Sent to `base_url` only."""
    models: tuple[str, ...] | None = None
    """Upstream model names this instance lists; unset: what the kind knows."""
    timeout_s: float = Field(60, gt=0)
    """Longest wait for one answer."""
    file_timeout_s: float = Field(3_600, gt=0)
    """Longest transfer of one file; a host that sends it drop by drop must not keep a worker's place for ever."""
    connections: int = Field(20, gt=0)
    """Connections one process opens to this provider for calls; files come on others."""
    poll_interval_s: float | None = Field(None, gt=0)
    """First gap between two polls; unset: what suits the kind."""
    concurrency: int | None = Field(None, gt=0)
    """Tasks this account may have at the upstream at once, over all processes; more wait in our queue."""

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return json.loads(value) if value.startswith("[") else [part.strip() for part in value.split(",")]
        return value

    @field_validator("api_key", mode="before")
    @classmethod
    def _sendable(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not all(" " <= character <= "~" for character in value.strip()):
            raise ValueError("expected printable ASCII: nothing else can be sent")
        return value.strip()

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("expected an address such as https://api.example.com/v1")
        host = value.partition("://")[2].partition("/")[0]
        if "@" in host or "?" in value or "#" in value:  # it is kept with every job, and shown to operators
            raise ValueError("expected an address without user, password and query; a key is set as API_KEY")
        return value.rstrip("/")


class Provider(ABC):
    """One configured upstream account. Instances hold configuration and clients, nothing about any job."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """The vendor's name as people write it."""
    models: ClassVar[Mapping[str, Capabilities]] = {}
    """The models this kind knows; what `any_model` says about all others."""
    any_model: ClassVar[Capabilities | None] = None
    """Set where the kind serves models it has never heard of."""
    poll_interval_s: ClassVar[float] = 2
    poll_interval_max_s: ClassVar[float] = 15
    polls_at_once: ClassVar[int] = 1
    """How many tasks one `poll_many` can ask for; 1 where the wire knows no such call."""
    callbacks: ClassVar[bool] = False
    """Whether `Task.callback_url` is passed on."""
    characters: ClassVar[bool] = False
    """Whether `create_character` works."""

    class Config(ProviderConfig):
        pass

    def __init__(self, name: str, config: ProviderConfig, allow_networks: tuple[net.Network, ...] = ()) -> None:
        self.name = name
        self.config = config
        self._echo = echo_of(self._secret) if self._secret else None
        # In front of httpx's pool, which looks at every waiting request each time anything happens.
        self._turns = asyncio.Semaphore(config.connections)
        self.http = net.upstream(timeout_s=config.timeout_s, connections=config.connections + FILES_AT_ONCE)
        self.guarded = net.guarded(allow=allow_networks, timeout_s=config.timeout_s)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.guarded.aclose()

    # What an adapter says

    @abstractmethod
    async def submit(self, task: Task) -> Submission:
        """Hand the task over. Raises any `UpstreamError`; after `UpstreamUnknown` it is never called again
        unless `can_resubmit`."""

    @abstractmethod
    async def poll(self, task: Task) -> Progress:
        """Ask how far `task.ref` is. Raises `UpstreamGone`, `UpstreamUnavailable`, `UpstreamRateLimited`,
        `UpstreamAccount`, `UpstreamRejected`; none of these is a verdict on the job."""

    async def poll_many(self, tasks: Sequence[Task]) -> dict[str, Progress | errors.UpstreamError]:
        """Ask for up to `polls_at_once` tasks in one request; answers by `Task.id`, and one that is missing counts as
        `UpstreamGone`. Raises like `poll` when the request as a whole fails."""
        raise NotImplementedError

    async def cancel(self, task: Task) -> bool:
        """Ask the upstream to stop. True when it has stopped for certain and will not charge for more."""
        return False

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        """Open the finished file. Raises `UpstreamGone` when it is not there, `UpstreamUnavailable` when it may be
        there later, `UpstreamFailed` when there will never be one."""
        if output.url is None:
            raise errors.UpstreamGone("the upstream named no file", provider=self.name)
        async with self.download(output.url, authenticated=output.authenticated) as download:
            yield download

    async def create_character(self, name: str, video: Media, read: ReadMedia) -> str:
        """Make a reusable character from a film; returns the upstream's id for it."""
        raise NotImplementedError

    @property
    def can_resubmit(self) -> bool:
        """Whether a submit with the same `Task.id` certainly makes one task only."""
        return False

    # What the machine asks

    @property
    def listed(self) -> tuple[str, ...]:
        """Upstream model names to show in the model list."""
        return self.config.models if self.config.models is not None else tuple(self.models)

    def capabilities(self, model: str) -> Capabilities | None:
        """What `model` can express here; None when this provider does not serve it."""
        if model in self.models:
            return self.models[model]
        return self.any_model

    def poll_gap_s(self, polls: int, default_s: float | None) -> float:
        """Seconds until the next poll after `polls` of them: starts short, grows gently to a ceiling."""
        first = self.config.poll_interval_s or default_s or self.poll_interval_s
        return min(first * 1.15 ** min(polls, 100), max(first, self.poll_interval_max_s))

    @property
    def fingerprint(self) -> str:
        """Which credential this is, without saying what it is."""
        return hashlib.sha256(self._secret.encode()).hexdigest()[:12] if self._secret else ""

    # What adapters use

    @property
    def _secret(self) -> str:
        return self.config.api_key.get_secret_value() if self.config.api_key else ""

    @property
    def auth(self) -> dict[str, str]:
        """Headers that carry our credential; for requests to the configured origin only."""
        return {"authorization": f"Bearer {self._secret}"} if self._secret else {}

    async def call(
        self, verb: Literal["submit", "poll", "cancel", "character"], method: str, path: str, **kwargs: Any
    ) -> httpx.Response:
        """One request to the configured origin; 2xx is returned, all else raised as an `UpstreamError`.

        With `verb="submit"`, whatever leaves open whether the upstream took the task is an `UpstreamUnknown`.
        """
        headers = {**self.auth, **kwargs.pop("headers", {})}
        started = time.perf_counter()
        try:
            response = await self._request(verb, method, self.config.base_url + path, headers=headers, **kwargs)
            if not response.is_success:
                raise self.error_from(verb, response)
            return response
        except errors.UpstreamError as error:
            UPSTREAM_ERRORS.labels(self.name, verb, error.code).inc()
            raise
        finally:
            UPSTREAM_SECONDS.labels(self.name, verb).observe(time.perf_counter() - started)

    async def _request(self, verb: str, method: str, url: str, **kwargs: Any) -> httpx.Response:
        try:
            request = self.http.build_request(method, url, **kwargs)
            async with self._turns:
                response = await self.http.send(request, stream=True)
                try:
                    async with asyncio.timeout(self.config.timeout_s):
                        return await self._read(verb, response)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise errors.UpstreamUnavailable(
                f"{self.name} cannot be reached ({type(error).__name__})", provider=self.name
            ) from error
        except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
            raise self.unreadable(verb, f"no answer ({type(error).__name__})") from error

    async def _read(self, verb: str, response: httpx.Response) -> httpx.Response:
        """The answer with its body in memory, which is refused beyond `MAX_ANSWER_BYTES`."""
        body = bytearray()
        async for chunk in net.unpacked(response, CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise self.unreadable(verb, f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        return httpx.Response(response.status_code, headers=plain(response.headers), content=bytes(body))

    def json(self, verb: str, response: httpx.Response) -> dict[str, Any]:
        """The answer as a JSON object; anything else is what `unreadable` makes of it."""
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self.unreadable(verb, "the answer is not a JSON object", response)
        return document

    def ref_of(self, verb: str, document: dict[str, Any], response: httpx.Response) -> str:
        """The id in an answer; one that cannot be used is what `unreadable` makes of it."""
        ref = document.get("id")
        if not is_usable(ref):
            raise self.unreadable(verb, "the answer carries no usable id", response)
        return ref

    def status_of(self, words: Mapping[str, Status], said: Any, *, erred: bool = False) -> tuple[Status, str]:
        """Look an upstream's word up; returns it as it may be shown, too. A word never seen is still running, unless
        an error stands beside it (`erred`)."""
        status = words.get(str(said)[:100].lower().replace("-", "_"))
        raw = self.scrub(str(said))[:100]
        if status is None:
            status = Status.failed if erred and said and isinstance(said, str) else Status.in_progress
            log.warning(f"unknown upstream status, taken as {status}", provider=self.name, status=raw)
        return status, raw

    def accepted(self, words: Mapping[str, Status], response: httpx.Response, *, key: str = "status") -> Submission:
        """The answer to a submit; how a task ended that is over at once is for the first poll to say."""
        task = self.json("submit", response)
        status, raw = self.status_of(words, task.get(key))
        status = Status.in_progress if status.ended else status
        return Submission(ref=self.ref_of("submit", task, response), status=status, raw_status=raw)

    def learned(
        self, status: Status, raw: str, *, url: str | None, error: Any = None, code: str | None = None
    ) -> Progress:
        """The answer to a poll, where the file's address is part of it: done without one is failed."""
        failure = self.failure(raw, error, code=code) if status is Status.failed else None
        if status is Status.completed and url is None:
            status = Status.failed
            failure = Failure(code="no_output", message=f"{self.name} reports the video as {raw}, but names no file")
        output = Output(url=url) if status is Status.completed else None
        return Progress(status=status, raw_status=raw, output=output, failure=failure)

    def failure(self, raw: str, message: Any, *, code: str | None = None) -> Failure:
        """Why a task failed, in the upstream's words as far as there are any."""
        if code is None:
            word = raw.lower()
            code = "cancelled" if word in CANCELLED_WORDS else "expired" if word == "expired" else "generation_failed"
        text = self.scrub(message if isinstance(message, str) else json.dumps(message) if message else "")
        if any(word in f"{code} {text}".lower() for word in CONTENT_POLICY_WORDS):
            code = errors.ContentPolicy.default_code
        return Failure(code=self.scrub(code)[:100], message=text or f"{self.name} reports the video as {raw}")

    def unreadable(self, verb: str, why: str, response: httpx.Response | None = None) -> errors.UpstreamError:
        """The error for an answer that says nothing: unknown after a submit, try again after all else."""
        kind = errors.UpstreamUnknown if verb == "submit" else errors.UpstreamUnavailable
        return kind(
            f"{self.name}: {why}",
            provider=self.name,
            upstream_status=response.status_code if response is not None else None,
            body=self.scrub(response.text) if response is not None else None,
        )

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        """Read an answer that is not 2xx; the HTTP status decides before the words do."""
        status = response.status_code
        code, message = self.read_error(response)
        words = f"{code or ''} {message}".lower()
        details: dict[str, Any] = {
            "provider": self.name,
            "upstream_status": status,
            "body": self.scrub(response.text),
            "retry_after_s": retry_after_s(response.headers),
        }
        text = self.scrub(message) if message else f"{self.name} answered {status}"
        if status == 402 or (status in (403, 429) and any(word in words for word in CREDIT_WORDS)):
            return errors.UpstreamCredit(f"the gateway's account at {self.name} has no credit left", **details)
        if status in (401, 403) and not any(word in words for word in CONTENT_POLICY_WORDS):
            return errors.UpstreamAccount(f"{self.name} refuses the gateway's credentials ({status})", **details)
        if status == 429:
            return errors.UpstreamRateLimited(f"{self.name} is busy ({status})", **details)
        if status in (404, 410) and verb != "submit":
            return errors.UpstreamGone(text, **details)
        if status in (300, 301, 302, 303, 304):
            return self.unreadable(verb, f"answered with a redirect ({status}); check its base URL", response)
        if status in (307, 308, 405, 407, 421):
            return errors.UpstreamAccount(f"{self.name} answers {status}; check its base URL", **details)
        if status >= 500 or status in (408, 409, 425):
            certain = verb != "submit" or (status == 503 and self._spoke_itself(response))
            kind = errors.UpstreamUnavailable if certain else errors.UpstreamUnknown
            return kind(f"{self.name} answered {status}" + (f": {text}" if message else ""), **details)
        if any(word in words for word in CONTENT_POLICY_WORDS):
            return errors.ContentPolicy(text, **details)
        return errors.UpstreamRejected(text, **details)

    def _spoke_itself(self, response: httpx.Response) -> bool:
        """Whether a 503 is the upstream's own refusal. A proxy also says 503 when the connection behind it broke in
        the middle of a request that was taken; it neither speaks JSON nor says when to come back."""
        return "retry-after" in response.headers or "json" in response.headers.get("content-type", "")

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        """Return (code, message) of an error answer, whichever of the usual envelopes it has."""
        try:
            document = response.json()
        except (ValueError, RecursionError):
            return None, ""
        error = (document.get("error") or document) if isinstance(document, dict) else document
        if isinstance(error, dict):
            message = error.get("message") or error.get("detail") or error.get("msg") or ""
            code = error.get("code") or error.get("type")
            return str(code) if code else None, message if isinstance(message, str) else json.dumps(message)
        return None, error if isinstance(error, str) else ""

    def scrub(self, text: str) -> str:
        """Cut to a readable length and take out our key, the configured address, and what permits in other ones."""
        host = httpx.URL(self.config.base_url).netloc.decode() if self.config.base_url else ""
        text = net.bare(self._echo.sub("[key]", text) if self._echo else text)
        for inner in filter(None, (self.config.base_url, host)):
            text = text.replace(inner, self.name)
        return " ".join(text.replace("\0", "").encode(errors="replace").decode().split())[:500]

    @asynccontextmanager
    async def download(self, url: str, *, authenticated: bool) -> AsyncIterator[Download]:
        """Open a file at `url` and follow redirects. Our key goes with requests to the configured origin only;
        hosts other than the configured one are reached through the guarded client. Raises `UpstreamGone` where the
        file is not there, or a link without a key is refused: it has expired."""
        limit = asyncio.timeout(self.config.file_timeout_s)
        try:
            async with limit, self._opened(url, authenticated=authenticated) as download:
                yield download
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise errors.UpstreamUnavailable(
                f"{self.name} took longer than {self.config.file_timeout_s:g} s to send the file", provider=self.name
            ) from error

    @asynccontextmanager
    async def _opened(self, url: str, *, authenticated: bool) -> AsyncIterator[Download]:
        home = httpx.URL(self.config.base_url) if self.config.base_url else None
        try:
            target = address(home, url)
        except (httpx.InvalidURL, ValueError) as error:
            raise errors.UpstreamGone(f"{self.name} named a file address that is none", provider=self.name) from error
        for _ in range(MAX_REDIRECTS + 1):
            same_host = home is not None and target.host == home.host
            same_origin = same_host and home is not None and (target.scheme, target.port) == (home.scheme, home.port)
            client = self.http if same_host else self.guarded
            with_key = authenticated and same_origin
            headers = {"accept": "video/*, */*;q=0.5", **(self.auth if with_key else {})}
            try:
                async with client.stream("GET", target, headers=headers) as response:
                    location = response.headers.get("location")
                    if response.is_redirect and location:
                        target = self._redirected(target, location)
                        continue
                    if not response.is_success:
                        refusal = self.error_from("fetch", await self._read("fetch", response))
                        if isinstance(refusal, errors.UpstreamAccount) and not with_key:
                            raise errors.UpstreamGone(refusal.message, provider=self.name, body=refusal.body)
                        raise refusal
                    yield Download(
                        chunks=net.unpacked(response, CHUNK_BYTES),
                        content_type=response.headers.get("content-type"),
                        size=declared_size(response.headers),
                    )
                    return
            except (httpx.RequestError, httpx.InvalidURL) as error:
                if isinstance(error, net.ForbiddenAddress):
                    log.warning("result address refused", provider=self.name, reason=str(error))
                raise errors.UpstreamUnavailable(
                    f"the file could not be fetched from {self.name} ({type(error).__name__})", provider=self.name
                ) from error
        raise errors.UpstreamUnavailable(f"{self.name} redirects the file in circles", provider=self.name)

    def _redirected(self, target: httpx.URL, location: str) -> httpx.URL:
        try:
            return address(target, location)
        except (httpx.InvalidURL, ValueError) as error:
            message = f"{self.name} redirects the file to an address that is none"
            raise errors.UpstreamUnavailable(message, provider=self.name) from error
