"""Models of the responses of the administration API about the running gateway, for the OpenAPI document."""

from typing import Any, Literal

from pydantic import AwareDatetime, Field

from app.http.openapi import ResponseModel
from app.video import AttemptState, DeliveryState
from app.webhooks.events import EventType

CircuitState = Literal["closed", "open", "half_open"]


class Circuit(ResponseModel):
    """A circuit breaker: nothing is submitted while it is `open`; `half_open`: the next submit is a probe."""

    state: CircuitState
    failures: int
    """Failures in a row."""
    open_until: AwareDatetime | None


class ProjectCircuit(Circuit):
    project: str


class ProviderBreaker(Circuit):
    """The circuit of all projects together, and those of single projects."""

    projects: list[ProjectCircuit]
    """Those that have failures, at most 100."""


class FailureCount(ResponseModel):
    code: str
    count: int


class Percentiles(ResponseModel):
    """Median and 95th percentile, in seconds."""

    p50: float
    p95: float


class ProviderHour(ResponseModel):
    """The last hour of a provider: submits by their time, the others by their end."""

    submits: int
    succeeded: int
    failed: int
    success_rate: float | None
    """From 0 to 1; null: nothing has ended."""
    failures: list[FailureCount]
    """By error code, most frequent first, at most 20."""
    accepted_s: Percentiles | None
    """From submit to acceptance."""
    finished_s: Percentiles | None
    """From submit to the stored file."""


class ProviderError(ResponseModel):
    """The last failure of the last 24 hours, or the last refusal of a submit that is repeated."""

    at: AwareDatetime
    """The end; of a submit that is repeated the last one that was sent, else the creation."""
    attempt: str
    video: str
    code: str | None
    message: str | None
    body: str | None
    """The vendor's words, trimmed; without secrets."""


class HourOfProvider(ResponseModel):
    start: AwareDatetime
    submits: int
    failures: int


class ProviderModel(ResponseModel):
    model: str
    route: str
    """`provider/upstream-model`."""


class ProviderState(ResponseModel):
    """A provider: its circuit, its queue and its figures."""

    name: str
    object: Literal["provider"]
    kind: str | None
    """Null: it is not configured any more."""
    configured: bool
    breaker: ProviderBreaker
    limit: int | None
    """Tasks at once (`CONCURRENCY`); null: no limit."""
    under_way: int
    """Tasks that are being submitted or run at the vendor."""
    waiting: int
    oldest_wait_s: int | None
    storing: int
    """Finished tasks whose file is being stored."""
    last_hour: ProviderHour
    last_error: ProviderError | None
    hours: list[HourOfProvider]
    """The last 24 hours, oldest first."""
    models: list[ProviderModel]
    """Models that lead here, at most 200."""


class ProviderList(ResponseModel):
    object: Literal["list"]
    data: list[ProviderState]
    complete: bool
    """False: there were more than 50,000 attempts in this time, and only the newest are counted."""


class ReleasedBreaker(ResponseModel):
    object: Literal["provider.breaker"]
    provider: str
    closed: int
    """Circuits that were open or had failures."""


class ProviderCheck(ResponseModel):
    """The result of a free call."""

    object: Literal["provider.check"]
    provider: str
    status: Literal["ok", "warning", "failed"]
    text: str
    hint: str
    """The next step; empty: none is needed."""
    duration_ms: int


class AliasRoute(ResponseModel):
    """A route of an alias as configured."""

    to: str
    weight: float | None
    leads_to: list[str]
    """`provider/upstream-model`; empty: nowhere."""
    problem: str | None
    """The reason why it leads nowhere."""


class Alias(ResponseModel):
    """An alias of the settings."""

    name: str
    object: Literal["alias"]
    usable: bool
    """False: it is left out, as none of its routes leads anywhere."""
    routes: list[AliasRoute]
    strategy: Literal["order", "cheapest", "fastest", "weighted"] | None
    unsupported: Literal["error", "drop"]
    frames: Literal["refuse", "pad", "crop"]
    on_unknown: Literal["fail", "resubmit"]
    retry_failed: bool
    max_cost_usd: float | None


class AliasList(ResponseModel):
    object: Literal["list"]
    data: list[Alias]


class Setting(ResponseModel):
    name: str
    """The variable; for names that variables cannot have, the place in the TOML file."""
    value: Any
    """Secrets are masked: the last four characters of a long one are shown."""
    origin: str
    """`environment`, `.env`, the name of the TOML file, `command line` or `default`."""


class SettingWarning(ResponseModel):
    text: str
    next_step: str


class SettingsReport(ResponseModel):
    object: Literal["settings"]
    files: list[str]
    """The files that were read."""
    data: list[Setting]
    warnings: list[SettingWarning]


class RunningWorker(ResponseModel):
    host: str
    pid: int
    version: str
    seen_s: int
    """Seconds since its last sign."""


class QueuedJobs(ResponseModel):
    """Unfinished outputs of one provider in one state."""

    provider: str
    state: AttemptState
    count: int
    oldest_s: int


class OpenCircuit(ResponseModel):
    provider: str
    project: str | None
    """Null: all projects."""
    open_until: AwareDatetime


class UndecidedSubmit(ResponseModel):
    id: str
    video: str
    project: str
    provider: str
    submitted_at: AwareDatetime | None
    held_usd: float | None


class DisabledEndpoint(ResponseModel):
    id: str
    project_id: str
    name: str
    disabled_reason: str


class WaitingWebhooks(ResponseModel):
    pending: int
    oldest_s: int | None
    disabled_endpoints: list[DisabledEndpoint]
    """At most 1,000."""


class UnfinishedVideos(ResponseModel):
    queued: int
    in_progress: int


class VideosOfOneDay(ResponseModel):
    """The last 24 hours: created videos by their creation, the others by their end."""

    created: int
    completed: int
    failed: int
    """Cancelled ones included."""
    cancelled: int
    cost_usd: float
    """Known costs of those that ended."""


class StatusReport(ResponseModel):
    """The state of the running gateway, from its database."""

    object: Literal["status"]
    version: str
    schema_: str | None = Field(alias="schema")
    workers: list[RunningWorker]
    jobs: list[QueuedJobs]
    circuits: list[OpenCircuit]
    """At most 1,000."""
    undecided: list[UndecidedSubmit]
    """Submits of unknown outcome, oldest first, at most 1,000: `/admin/v1/repairs` decides."""
    undecided_count: int
    webhooks: WaitingWebhooks
    unfinished: UnfinishedVideos
    last_24_h: VideosOfOneDay
    held_usd: float
    database_ms: float
    """Duration of the smallest query, a connection from the pool included."""


class ProjectDeliveryTry(ResponseModel):
    at: AwareDatetime
    status_code: int | None
    """Null: no response."""
    duration_ms: int
    error: str | None
    """Reason why the try failed; null: delivered."""


class ProjectDelivery(ResponseModel):
    """The delivery of an event of a project to one receiver."""

    id: str
    object: Literal["webhook_delivery"]
    project: str
    event_id: str
    event_type: EventType
    video_id: str
    webhook_endpoint_id: str | None
    receiver: str | None
    """Scheme, host and port of the `webhook_url` of a request; null: an endpoint."""
    state: DeliveryState
    created_at: AwareDatetime
    next_try_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    tries: list[ProjectDeliveryTry]


class ProjectDeliveryPage(ResponseModel):
    object: Literal["list"]
    data: list[ProjectDelivery]
    first_id: str | None
    last_id: str | None
    has_more: bool
