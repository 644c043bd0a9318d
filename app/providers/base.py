"""The contract between the job machine and an upstream.

An adapter makes one HTTP call per verb: no loops, no sleeps, no retries, no database. It returns the parsed answer or
raises an error of `errors.py`; time, retries and money belong to the worker. For a submit the important difference
is between "certainly not accepted" (`UpstreamUnavailable`, `UpstreamRateLimited`, `UpstreamRejected`,
`UpstreamAccount`) and "outcome unknown" (`UpstreamUnknown`): only the former may be sent again. Adapters of HTTP APIs
derive from `RestProvider` in `rest.py`.
"""

import base64
import hashlib
import json
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Annotated, Any, ClassVar

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from app import errors, net
from app.capabilities import Capabilities
from app.media.uploads import Upload
from app.mistakes import seconds
from app.setting_types import check_proxy
from app.video import Media, Output, Progress, Status, Submission, VideoRequest

MAX_DATA_URL_BYTES = 20 * 2**20
"""Limit for an upload sent as base64 within JSON: several whole copies of it are in memory."""
ReadMedia = Callable[[Media], AbstractAsyncContextManager["Upload"]]


class NotBegun(Exception):
    """A submit must not be sent: the attempt was cancelled or claimed by another worker, or this could not be
    recorded."""


async def begin_unrecorded() -> None:
    """Allow the submit without a record; for tasks that are only polled, and for tests of adapters."""


def _no_media(media: Media) -> AbstractAsyncContextManager["Upload"]:
    raise NotBegun("a poll reads no media")


@dataclass(frozen=True)
class Download:
    """A finished file being downloaded. If `chunks` breaks off, the `fetch` context in which it is read raises
    `UpstreamUnavailable`."""

    chunks: AsyncIterator[bytes]
    content_type: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Task:
    """One attempt as the adapter sees it: everything an adapter may know."""

    id: str
    """The attempt's id: the same on every try of the same submit, so it serves as idempotency key."""
    model: str
    """The upstream's own model name."""
    request: VideoRequest
    read: ReadMedia
    """Opens an uploaded file (`Media.key`) of the request."""
    now: datetime
    ref: str | None = None
    """The upstream's id of the task, once accepted."""
    status: Status | None = None
    """For a cancel: the task's status as a poll has just read it."""
    submitted_at: datetime | None = None
    in_doubt: bool = False
    """True: an earlier submit of this task has an unknown outcome, so the upstream may have it."""
    source_ref: str | None = None
    """The same upstream's id of the task that made `request.source`."""
    character_refs: tuple[str, ...] = ()
    """The same upstream's ids of `request.characters`."""
    link: Callable[[Media], str | None] = lambda media: media.url
    """URL from which the upstream can download a medium: the caller's own, or a signed URL of this gateway for an
    upload or a video of its own; None if this gateway has no public address."""
    callback_url: str | None = None
    """Unguessable URL of this gateway for this attempt; a call to it only means "poll now". None without a public
    address; no callback is requested then."""
    callback_secret: str = ""
    """For upstreams that require a secret to sign their callbacks."""
    begin: Callable[[], Awaitable[None]] = begin_unrecorded
    """Records the submit; awaited once, right before the paid call can have an effect. Raises `NotBegun`."""
    prepared: Any = None
    """The result of `Provider.prepare`."""

    async def data_url(self, media: Media, *, provider: str) -> str:
        """An upload as a `data:` URL within JSON. Raises `UpstreamRejected` if it is too large."""
        async with self.read(media) as upload:
            return await data_url_of(upload, provider=provider)


async def data_url_of(upload: Upload, *, provider: str) -> str:
    """An open upload as a `data:` URL. Raises `UpstreamRejected` if it is too large."""
    if upload.size > MAX_DATA_URL_BYTES:
        limit = f"{provider} takes uploads of at most {MAX_DATA_URL_BYTES // 2**20} MiB"
        raise errors.UpstreamRejected(f"{limit}; send its https:// address", provider=provider)
    content = b"".join([chunk async for chunk in upload.chunks])
    return f"data:{upload.content_type};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class ListedTask:
    """A task as the upstream's list of the account's tasks shows it."""

    ref: str
    created_at: datetime
    model: str | None = None
    raw_status: str | None = None
    own_id: str | None = None
    """The id that its submit gave it, where the list shows one: that of an attempt, or of other software."""


class ProviderConfig(BaseModel):
    """Settings of every provider instance, `GATEWAY_PROVIDERS__<NAME>__<FIELD>`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: str = ""
    """The kind of provider; unset: the name."""
    enabled: bool = True
    """False disables the provider without deleting its settings."""
    base_url: str = ""
    """URL prefix of the paths in the vendor's documentation."""
    api_key: SecretStr | None = None
    """Sent to `base_url`, and to further addresses that the kind names, only."""
    models: tuple[str, ...] | None = None
    """Upstream model names this instance lists; unset: the models of the kind."""
    timeout_s: float = Field(60, gt=0)
    """Time limit for one call, from connecting to the end of the answer; an upload gets a second more per 64 KiB."""
    file_timeout_s: float = Field(3_600, gt=0)
    """Total time limit for one download, against slow hosts."""
    connections: int = Field(20, gt=0)
    """Submits per process to this provider at once, and as many other calls; downloads use connections of their own."""
    poll_interval_s: float | None = Field(None, gt=0)
    """First gap between two polls; unset: the default of the kind."""
    concurrency: int | None = Field(None, gt=0)
    """Concurrent tasks of this account at the upstream, over all processes; more wait in the queue."""
    proxy: Annotated[SecretStr, AfterValidator(check_proxy)] | None = None
    """Proxy for this provider's calls and results, `http://user:password@proxy:3128`; `none`: direct; unset:
    `GATEWAY_HTTP_PROXY`, or those of the environment."""

    @field_validator("*", mode="before")
    @classmethod
    def _seconds(cls, value: Any, info: ValidationInfo) -> Any:
        return seconds(info.field_name, value)

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return json.loads(value) if value.startswith("[") else [part.strip() for part in value.split(",")]
        return value

    @property
    def credentials(self) -> str | None:
        """The setting that has the account's credentials; None without any."""
        return "API_KEY" if self.api_key is not None else None

    @field_validator("api_key", "access_key", "secret_key", "webhook_secret", mode="before", check_fields=False)
    @classmethod
    def _sendable(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not all(" " <= character <= "~" for character in value.strip()):
            raise ValueError("expected printable ASCII: nothing else can be sent")
        if re.fullmatch(r"\$(\w+|\{\w+\})", value.strip()):
            raise ValueError("the name of a variable was not replaced by the key; .env takes ${NAME}, with braces")
        return value.strip()

    @field_validator("base_url", "storage_url", "token_url", "metadata_url", check_fields=False)
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("expected an address such as https://api.example.com/v1")
        host = value.partition("://")[2].partition("/")[0]
        if "@" in host or "?" in value or "#" in value:  # stored with every job and shown to operators
            raise ValueError("expected an address without user, password and query; a key is set as API_KEY")
        return value.rstrip("/")


@dataclass(frozen=True)
class Outbound:
    """The ways out of this process for one provider."""

    allow_networks: tuple[net.Network, ...] = ()
    """Private networks that result URLs may point to."""
    proxies: net.Proxies = net.DIRECT


OPEN = Outbound()


class Provider(ABC):
    """One configured upstream account. Instances hold configuration and clients, nothing about any job."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """The vendor's name for display."""
    tried: ClassVar[date | None] = None
    """When it was last used with the vendor's real API; None: never."""
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Variables in which people may already have a key of the vendor: that of its SDK first; empty if it names none."""
    key_page: ClassVar[str] = ""
    """The page on which the vendor makes keys; empty if none is known."""
    prices_read: ClassVar[date | None] = None
    """When the list prices in `models` were read; None if there are none."""
    models: ClassVar[Mapping[str, Capabilities]] = {}
    """Known models; all others have the capabilities of `any_model`."""
    any_model: ClassVar[Capabilities | None] = None
    """Capabilities of models not in `models`; None if the kind does not serve such."""
    poll_interval_s: ClassVar[float] = 2
    poll_interval_max_s: ClassVar[float] = 15
    polls_at_once: int = 1
    """Maximum tasks of one `poll_many`; 1 if the API has no such call."""
    callbacks: ClassVar[bool] = False
    """True if `Task.callback_url` is passed on."""
    lists_tasks: ClassVar[bool] = False
    """True if `list_tasks` is supported."""
    characters: ClassVar[bool] = False
    """True if `create_character` is supported."""
    needs_whole_body: ClassVar[bool] = False
    """True if the API certainly acts on a submit only when all of its body has arrived: a long body is then sent up to
    its last piece before the submit counts as begun."""

    class Config(ProviderConfig):
        pass

    def __init__(self, name: str, config: ProviderConfig, outbound: Outbound = OPEN) -> None:
        self.name = name
        self.config = config
        self.proxies = outbound.proxies

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def proxy(self) -> str | None:
        """Host and port of the proxy before its address; None if it is called directly."""
        found = self.proxies.of(httpx.URL(self.config.base_url)) if self.config.base_url else None
        return None if found is None else found.name

    def proxy_note(self, url: httpx.URL | str, error: Exception) -> str | None:
        """The proxy of a failed call, for the operator: messages for clients do not name it."""
        proxy = self.proxies.of(httpx.URL(url))
        if proxy is None:
            return None
        return str(error) if isinstance(error, net.ProxyRefused) else f"called through the proxy {proxy.name}"

    async def aclose(self) -> None:  # noqa: B027  # a provider without connections needs no override
        """Close the connections of the instance."""

    # The calls of an adapter

    async def prepare(self, task: Task) -> Any:
        """Make the free calls that the submit needs, such as a token or an upload, and build what it sends; the result
        is `Task.prepared` of the submit. May be repeated. Raises any `UpstreamError`, which means "not sent"."""
        return None

    async def send(self, task: Task) -> Submission:
        """Prepare the task, then submit it. Raises what both do."""
        return await self.submit(replace(task, prepared=await self.prepare(task)))

    @abstractmethod
    async def submit(self, task: Task) -> Submission:
        """Create the task at the upstream by one paid call, with `task.begin` awaited right before it. Raises any
        `UpstreamError`; after `UpstreamUnknown` it is not called again unless `can_resubmit` or `looks_up`. Before
        `task.begin` has returned nothing was sent, and every error may be repeated."""

    @abstractmethod
    async def poll(self, task: Task) -> Progress:
        """Read the state of `task.ref`. Raises `UpstreamGone`, `UpstreamUnavailable`, `UpstreamRateLimited`,
        `UpstreamAccount`, `UpstreamRejected`; none of these ends the job."""

    async def poll_many(self, tasks: Sequence[Task]) -> dict[str, Progress | errors.UpstreamError]:
        """Read the state of up to `polls_at_once` tasks in one request; results by `Task.id`, a missing one counts as
        `UpstreamGone`. Raises like `poll` when the whole request fails."""
        raise NotImplementedError

    async def cancel(self, task: Task) -> bool:
        """Cancel the task at the upstream. True only if it has certainly stopped and is not charged further."""
        return False

    @abstractmethod
    def fetch(self, task: Task, output: Output) -> AbstractAsyncContextManager[Download]:
        """Open the finished file. Raises `UpstreamGone` if it is not there, `UpstreamUnavailable` if it may be there
        later, `UpstreamFailed` if there will never be one."""

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        """Read one page of the account's tasks, newest first; returns the name of the next page as well, None after the
        last. Raises like `poll`."""
        raise NotImplementedError

    def lists(self, model: str) -> bool:
        """True if tasks of this model are in `list_tasks`."""
        return self.lists_tasks

    def is_callback(self, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> bool:
        """True unless the vendor signs its callbacks and this one's signature is missing or wrong. `secret` is
        `Task.callback_secret`, the names of `headers` are in lower case."""
        return True

    async def create_character(self, name: str, video: Media, read: ReadMedia) -> str:
        """Create a reusable character from a video; returns the upstream's id of it."""
        raise NotImplementedError

    async def check(self, now: datetime) -> bool:
        """Try the address and the key by a free call, here the poll of a task that does not exist. True if the upstream
        accepts the key, False if its answer does not show it. Raises `UpstreamAccount` if it refuses the key,
        `UpstreamUnavailable` without an answer, `UpstreamGone` if the address seems wrong."""
        request = VideoRequest(prompt="a task that does not exist", model="none")
        ref = f"none-{secrets.token_hex(8)}"
        try:
            await self.poll(Task(ref, "none", request, read=_no_media, now=now, ref=ref))
        except errors.UpstreamGone:
            return True
        except (errors.UpstreamAccount, errors.UpstreamUnavailable):
            raise
        except errors.UpstreamError:
            pass
        return False

    @property
    def can_resubmit(self) -> bool:
        """True if repeated submits with the same `Task.id` certainly make one task only."""
        return False

    @property
    def looks_up(self) -> bool:
        """True if a submit in doubt (`Task.in_doubt`) is looked up by its `Task.id` in `prepare`, by a free call, and
        not sent again: `submit` then returns the task that was found without awaiting `task.begin`."""
        return False

    # Read by the job machine

    @property
    def region(self) -> str | None:
        """Region of the account, for vendors whose models and prices differ by it."""
        return None

    @property
    def listed(self) -> tuple[str, ...]:
        """Upstream model names to show in the model list."""
        return self.config.models if self.config.models is not None else tuple(self.models)

    def capabilities(self, model: str) -> Capabilities | None:
        """Capabilities of `model`; None if this provider does not serve it."""
        if model in self.models:
            return self.models[model]
        return self.any_model

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        """Capabilities of `model` for this request, which may decide which endpoint of the vendor serves it."""
        return self.capabilities(model)

    def poll_gap_s(self, polls: int, default_s: float | None) -> float:
        """Seconds until the next poll, after `polls` polls: grows by 15 % per poll up to a maximum."""
        first = self.config.poll_interval_s or default_s or self.poll_interval_s
        return min(first * 1.15 ** min(polls, 100), max(first, self.poll_interval_max_s))

    @property
    def fingerprint(self) -> str:
        """Short hash that identifies the credential without revealing it."""
        return hashlib.sha256(self._secret.encode()).hexdigest()[:12] if self._secret else ""

    @property
    def _secret(self) -> str:
        return self.config.api_key.get_secret_value() if self.config.api_key else ""
