"""Models of the responses of the administration API, for the OpenAPI document. Amounts named `_usd` are US dollars."""

from datetime import date
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime

from app.http.filters import SearchedVideos, VideoSums
from app.http.openapi import Json, ResponseModel, may_be_absent
from app.video import AttemptState, Billing, Entry, Settlement, Status


class Project(ResponseModel):
    """A project: keys, videos, webhooks and money belong to it."""

    example: ClassVar[Json] = {
        "id": "proj_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "object": "project",
        "name": "web shop",
        "billing": "prepaid",
        "monthly_budget_usd": 100.0,
        "kinds": None,
        "available_usd": 42.5,
        "created_at": "2026-11-26T12:00:00+00:00",
    }

    id: str
    object: Literal["project"]
    name: str
    billing: Billing
    monthly_budget_usd: float | None
    """Null: no limit."""
    kinds: list[str] | None
    """Kinds of provider that its requests may go to; null: all."""
    available_usd: float | None
    """The amount that it may still spend; null: no limit."""
    created_at: AwareDatetime


class ProjectList(ResponseModel):
    object: Literal["list"]
    data: list[Project]


class ApiKey(ResponseModel):
    """A key without its secret. A limit that is null is no limit."""

    id: str
    object: Literal["api_key"]
    name: str
    project: str
    ends_in: str
    """The last four characters of the key."""
    models: list[str] | None
    """Patterns of the models that it may use; null: all."""
    requests_per_minute: int | None
    concurrent_jobs: int | None
    monthly_budget_usd: float | None
    max_cost_usd: float | None
    """Highest cost of one request."""
    expires_at: AwareDatetime | None
    created_at: AwareDatetime
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None
    """Time of the last request, to a minute; null: none since this is recorded."""
    spent_usd: float
    """Cost and holds of the jobs of this month, UTC; `monthly_budget_usd` limits this amount."""
    running: int
    """Unfinished videos."""


class NewApiKey(ApiKey):
    """A key in the response to its creation, which alone shows it."""

    key: str


class ApiKeyList(ResponseModel):
    object: Literal["list"]
    data: list[ApiKey]


class UsageRow(ResponseModel):
    """Usage of one combination of the dimensions of the report; a dimension that the report lacks is absent."""

    project: str | None = may_be_absent()
    key: str | None = may_be_absent()
    model: str | None = may_be_absent()
    provider: str | None = may_be_absent()
    app: str | None = may_be_absent()
    user: str | None = may_be_absent()
    day: date | None = may_be_absent()
    jobs: int
    outputs: int
    seconds: float
    cost_usd: float
    held_usd: float
    """Holds of running jobs and of submits whose outcome is unknown."""
    unpriced_outputs: int
    """Outputs without a price, which `cost_usd` does not include."""
    reported_usd: float
    """Costs that vendors reported for the same outputs; not every vendor does."""
    underpriced_usd: float
    """Reported beyond our price, of outputs where that is over 5 %; it was not charged."""
    completed: int
    failed: int
    cancelled: int
    """Jobs by how they ended; `jobs` has those that were charged or may be."""
    mean_duration_s: float | None
    """Mean seconds from create to end of the completed jobs; null: there are none."""


class UsageReport(ResponseModel):
    object: Literal["usage"]
    since: date
    until: date
    by: list[str]
    data: list[UsageRow]


class LedgerRow(ResponseModel):
    """One movement of money."""

    id: str
    project: str
    kind: Entry
    amount_micros: int | None
    """Change of the balance in millionths of a US dollar; null: no price is known."""
    key_id: str | None
    video_id: str | None
    attempt_id: str | None
    cost_micros: int | None
    """Cost of an output, for `settle` only."""
    reported_micros: int | None
    """Cost of that output as its vendor reported it."""
    seconds: float | None
    model: str | None
    provider: str | None
    upstream_model: str | None
    app: str | None
    end_user: str | None
    day: date
    note: str | None
    created_at: AwareDatetime


class LedgerPage(ResponseModel):
    object: Literal["list"]
    data: list[LedgerRow]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AuditActor(ResponseModel):
    kind: Literal["admin_key", "console", "cli"]
    name: str
    """Name of the admin key, or system user and host of a command."""
    address: str | None
    """Address that the request came from; null for a command."""


class AuditRow(ResponseModel):
    """One change by an operator."""

    example: ClassVar[Json] = {
        "id": "audit_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "object": "audit_entry",
        "at": "2026-11-26T12:00:00+00:00",
        "actor": {"kind": "admin_key", "name": "alice", "address": "192.0.2.7"},
        "request_id": "req_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "action": "key.change",
        "subject": "key_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "project": "proj_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "before": {"monthly_budget_usd": 50.0},
        "after": {"monthly_budget_usd": 80.0},
    }

    id: str
    object: Literal["audit_entry"]
    at: AwareDatetime
    actor: AuditActor
    request_id: str | None
    """`x-request-id` of the response; null for a command."""
    action: str
    """Noun and verb, such as `key.create`."""
    subject: str
    """Id of what was changed."""
    project: str | None
    before: dict[str, Any] | None
    """The changed fields as they were; null for something new."""
    after: dict[str, Any] | None


class AuditPage(ResponseModel):
    object: Literal["list"]
    data: list[AuditRow]
    first_id: str | None
    last_id: str | None
    has_more: bool


class RepairError(ResponseModel):
    code: str | None
    message: str | None
    body: str | None
    """The upstream's answer, trimmed."""


class RepairCandidate(ResponseModel):
    """A task in the vendor's list that may be the lost one."""

    upstream_ref: str
    created_at: AwareDatetime
    upstream_model: str | None
    upstream_status: str | None


class Repair(ResponseModel):
    """A submit whose outcome is unknown, or a finished task without a file."""

    id: str
    object: Literal["repair"]
    video: str
    video_status: Status
    project: str
    provider: str
    upstream_model: str
    upstream_ref: str | None
    submitted_at: AwareDatetime | None
    model: str
    """The model as the client named it."""
    seconds: float | None
    """The requested length; null: none was requested."""
    prompt: str
    """The first 200 characters."""
    error: RepairError
    reason: Literal["unknown_outcome", "no_file"]
    held_usd: float | None
    given_back_at: AwareDatetime | None
    """Time at which the hold is returned without a decision."""
    actions: list[Literal["find", "resubmit", "fail", "fetch"]]
    """Possible decisions."""
    candidates: list[RepairCandidate] | None
    """Tasks of that minute that no job of this gateway has, first that with the id of this submit, then the nearest;
    null: not asked for, or not known."""


class RepairList(ResponseModel):
    object: Literal["list"]
    data: list[Repair]


class DecidedRepair(ResponseModel):
    id: str
    object: Literal["repair.decided"]
    action: Literal["find", "resubmit", "fail", "fetch"]


class AttemptDetails(ResponseModel):
    """One task at one upstream."""

    id: str
    output_index: int
    route_index: int
    state: AttemptState
    provider: str
    upstream_model: str
    base_url: str | None
    credential: str | None
    """Fingerprint of the upstream credential."""
    upstream_ref: str | None
    upstream_status: str | None
    progress: int
    due_at: AwareDatetime
    submits: int
    polls: int
    consecutive_failures: int
    cancel_tried: bool
    settlement: Settlement
    cost_micros: int | None
    uncapped_micros: int | None
    reported_micros: int | None
    """Cost that the vendor reported; never charged."""
    free: bool
    output: dict[str, Any] | None
    """Location of the file at the upstream."""
    error_code: str | None
    error_message: str | None
    error_body: str | None
    created_at: AwareDatetime
    submitted_at: AwareDatetime | None
    accepted_at: AwareDatetime | None
    ended_at: AwareDatetime | None


class PriceFormula(ResponseModel):
    """A price that is not by length alone, in micros: `fixed` and `per_second`, at least `least`."""

    per_second: int
    fixed: int
    least: int


class RouteChoice(ResponseModel):
    """A route that could serve the request, and the reason why it was tried at its place or passed over."""

    route: str
    cost_estimate: float | None
    median_seconds: float | None
    kept: bool
    reason: str


class VideoDetails(ResponseModel):
    """A video with every attempt; the columns of the database."""

    id: str
    project: str
    key_id: str
    dialect: str
    request_id: str | None
    """Id of the request that created it, its `x-request-id`, by which the log is searched."""
    traceparent: str | None
    """The trace of the job: the second part of this header of W3C is its id; null: traces were off."""
    status: Status
    progress: int
    model: str
    request: dict[str, Any]
    routes: list[str]
    choices: list[RouteChoice]
    """Routes that could serve the request, in their order; empty: there was only one."""
    outputs: list[dict[str, Any]]
    provider: str | None
    upstream_model: str | None
    warnings: list[str]
    source_video_id: str | None
    cost_estimate_micros: int | None
    prices: list[int | PriceFormula | None]
    """Price of each route at create, in micros per second; null: not known."""
    hold_micros: int | None
    longest_s: float | None
    cost_micros: int | None
    billed_s: float | None
    """Billed length of its outputs."""
    settlement: Settlement
    error_code: str | None
    error_message: str | None
    idempotency_key: str | None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    completed_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    deadline_at: AwareDatetime
    expires_at: AwareDatetime | None
    deleted_at: AwareDatetime | None
    purge_due_at: AwareDatetime | None
    purged_at: AwareDatetime | None
    """Time at which its content was erased at the request of a client."""
    attempts: list[AttemptDetails]


class ListedVideo(ResponseModel):
    """A video in the list of all projects, with the names of `GET /admin/v1/videos/{video_id}`."""

    id: str
    object: Literal["video"]
    project: str
    key_id: str
    dialect: str
    status: Status
    progress: int
    model: str
    provider: str | None
    """Null until a provider was tried."""
    upstream_model: str | None
    source_video_id: str | None
    prompt: str
    """The first 500 characters."""
    app: str | None
    user: str | None
    cost_estimate_micros: int | None
    cost_micros: int | None
    billed_s: float | None
    settlement: Settlement
    error_code: str | None
    error_message: str | None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    completed_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    purged_at: AwareDatetime | None


class VideoList(ResponseModel):
    """A page of videos of all projects, or of one."""

    object: Literal["list"]
    data: list[ListedVideo]
    first_id: str | None
    last_id: str | None
    """The value of `after` for the next page; `searched` may have looked further than the last video."""
    has_more: bool
    searched: SearchedVideos = may_be_absent()
    """Present with filters without an index."""
    summary: VideoSums = may_be_absent()
    """Present with `summary=true`."""
