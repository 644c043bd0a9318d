"""The contract between the job machine and an upstream.

An adapter makes one HTTP call per verb: no loops, no sleeps, no retries, no database. It returns what it learned or
raises from the tree in `errors.py`; time, retries and money belong to the worker. On a submit the difference that
counts is between "certainly not accepted" (`UpstreamUnavailable`, `UpstreamRateLimited`, `UpstreamRejected`,
`UpstreamAccount`) and "outcome unknown" (`UpstreamUnknown`): only the first may ever be sent again. Adapters of HTTP
APIs derive from `RestProvider` in `rest.py`.
"""

import base64
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from app import errors, net
from app.capabilities import Capabilities
from app.media.uploads import Upload
from app.video import Media, Output, Progress, Submission, VideoRequest

MAX_DATA_URL_BYTES = 20 * 2**20
"""Of an upload that travels as text within JSON, and is in memory as a whole, several times."""
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
        """`allow_networks` are the private networks that result addresses may lead to."""
        self.name = name
        self.config = config

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def aclose(self) -> None:  # noqa: B027  # a provider that holds nothing open has nothing to close
        """Close what the instance holds open."""

    # The calls of an adapter

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

    @abstractmethod
    def fetch(self, task: Task, output: Output) -> AbstractAsyncContextManager[Download]:
        """Open the finished file. Raises `UpstreamGone` when it is not there, `UpstreamUnavailable` when it may be
        there later, `UpstreamFailed` when there will never be one."""

    async def create_character(self, name: str, video: Media, read: ReadMedia) -> str:
        """Make a reusable character from a film; returns the upstream's id for it."""
        raise NotImplementedError

    @property
    def can_resubmit(self) -> bool:
        """Whether a submit with the same `Task.id` certainly makes one task only."""
        return False

    # What the job machine reads

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

    @property
    def _secret(self) -> str:
        return self.config.api_key.get_secret_value() if self.config.api_key else ""
