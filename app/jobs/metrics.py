"""Metrics of jobs, and the fields of their log lines."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from app import errors
from app.accounts.pricing import MICROS, Cost, format_usd, is_underpriced
from app.db.faults import TEXTS
from app.db.models import Attempt, Video
from app.jobs.spans import note_ended
from app.media.store import OPERATIONS
from app.providers.base import Provider
from app.telemetry import metrics
from app.telemetry.labels import OTHER, labels
from app.telemetry.logs import log, loggable
from app.video import CANCELLED, DeliveryState, Status, is_own_cancel

CLIENT, UPSTREAM, GATEWAY = "client", "upstream", "gateway"
CAUSES = {
    CLIENT: ("content_policy_violation", "invalid_image", "invalid_size", "not_found", "upstream_rejected"),
    UPSTREAM: (
        *("deadline_exceeded", "expired", "generation_failed", "no_output", "output_gone", "output_incomplete"),
        *("output_unavailable", "sandbox_failure", "upstream_error", "upstream_gone", "upstream_outcome_unknown"),
        *("upstream_rate_limited", "upstream_task_gone", "upstream_unavailable"),
    ),
    GATEWAY: (
        *("file_not_found", "internal_error", "output_too_large", "upstream_account_refused"),
        "upstream_insufficient_credit",
    ),
}
"""Codes of failed jobs by their cause: the request, the upstream, or this gateway with its settings, files and accounts
at the upstreams. Any other code is the upstream's own."""
_CAUSE_OF = {code: cause for cause, codes in CAUSES.items() for code in codes}
ENDS = (
    (str(Status.completed), ""),
    (CANCELLED.code, ""),
    *((str(Status.failed), cause) for cause in CAUSES),
)
"""Each status and cause with which a job can end."""
VERBS = ("submit", "poll", "cancel")
"""Calls to an upstream that any job may need."""
MAX_KNOWN_ENDS = 10_000
"""Providers, models and projects together whose counters are known to be shown."""
MAX_MODELS = 200
"""Models of one provider whose creates begin at zero; some vendors list more."""
WEBHOOK_OUTCOMES = (str(DeliveryState.delivered), "retried", str(DeliveryState.failed))


def log_fields(video: Video) -> dict[str, Any]:
    """Fields of every line about a job; `request` is the id of the request that created it."""
    model = loggable(video.model)
    return {"video": video.id, "project": video.project_id, "model": model, "request": video.request_id}


def cause_of(code: str | None) -> str:
    """The cause of a failed job by its error code."""
    return _CAUSE_OF.get(code or "", UPSTREAM)


def begin_at_zero(providers: Mapping[str, Provider]) -> None:
    """Show the counters of the configured providers, and those without one, before their first event: a rate needs a
    zero. The models that they list have labels of their own from now on."""
    labels.know(providers)
    for provider, instance in providers.items():
        # Not `listed`, which may ask the vendor for its list.
        known = instance.models if instance.config.models is None else instance.config.models
        for model in (OTHER, *tuple(known)[:MAX_MODELS]):
            metrics.CREATES.labels(provider, model)
        for status, cause in ENDS:
            metrics.JOBS.labels(provider, OTHER, status, cause)
        for verb in VERBS:
            metrics.UPSTREAM_SECONDS.labels(provider, verb)
            for code in _codes_of(errors.UpstreamError):
                metrics.UPSTREAM_ERRORS.labels(provider, verb, code)
        for code in _codes_of(errors.UpstreamAccount):
            metrics.ACCOUNT_REFUSALS.labels(provider, code)
        for counter in (metrics.CAPPED, metrics.CAPPED_DOLLARS, metrics.UNDERPRICED, metrics.UNDERPRICED_DOLLARS):
            counter.labels(provider)
    for outcome in WEBHOOK_OUTCOMES:
        metrics.WEBHOOKS.labels(outcome)
    for fault in TEXTS:
        metrics.DATABASE_ERRORS.labels(fault)
    for operation in OPERATIONS:
        metrics.STORE_ERRORS.labels(operation)


def _codes_of(parent: type[errors.UpstreamError]) -> set[str]:
    """The codes of a class of errors and those below it, without those that one step of a job adds."""
    return {one.default_code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, parent)}


def expect_end(video: Video, attempt: Attempt) -> None:
    """Show the counters of the end of a job at zero while it runs: of its model and its project there may be none."""
    provider = attempt.provider
    _begin_end_at_zero(provider, labels.model(provider, attempt.upstream_model), labels.project(video.project_id))


@lru_cache(MAX_KNOWN_ENDS)
def _begin_end_at_zero(provider: str, model: str, project: str) -> None:
    """Once for each: this is called at every step, and each poll is one."""
    for status, cause in ENDS:
        metrics.JOBS.labels(provider, model, status, cause)
    metrics.JOB_SECONDS.labels(provider, model)
    metrics.COST.labels(project, provider, model)


def count_created(provider: str, model: str) -> None:
    """Count a new job by its first route."""
    metrics.CREATES.labels(provider, labels.model(provider, model)).inc()


def count_ended(video: Video) -> None:
    """Count and log an ended job. Models that no provider lists share one label: clients can name any, labels stay
    bounded."""
    provider = video.provider or str(video.routes[0]).partition("/")[0]
    model = labels.model(provider, video.upstream_model)
    own = is_own_cancel(video.error_code, video.error_message)
    status = CANCELLED.code if own else str(video.status)
    cause = cause_of(video.error_code) if status == Status.failed else ""
    metrics.JOBS.labels(provider, model, status, cause).inc()
    seconds = round(((video.ended_at or video.updated_at) - video.created_at).total_seconds(), 1)
    if video.status is Status.completed:
        metrics.JOB_SECONDS.labels(provider, model).observe(seconds)
    log.info("video ended", **log_fields(video), status=str(video.status), code=video.error_code, seconds=seconds)
    note_ended(video, provider)


def count_refusal(error: errors.UpstreamError) -> None:
    """Count an answer of an upstream that refuses our key or our account."""
    if isinstance(error, errors.UpstreamAccount):
        metrics.ACCOUNT_REFUSALS.labels(error.provider, error.code).inc()


def count_capped(attempt: Attempt, cost: Cost) -> None:
    """Count and log an output that was charged less than its measured length costs."""
    charged, by_length = cost.micros or 0, cost.uncapped_micros or 0
    metrics.CAPPED.labels(attempt.provider).inc()
    metrics.CAPPED_DOLLARS.labels(attempt.provider).inc((by_length - charged) / MICROS)
    log.warning("cost capped", attempt=attempt.id, charged=format_usd(charged), by_length=format_usd(by_length))


def count_underpriced(attempt: Attempt, cost: Cost) -> None:
    """Count and log an output for which the upstream reported more than our price."""
    ours = cost.micros if cost.uncapped_micros is None else cost.uncapped_micros
    if ours is None or attempt.free or not is_underpriced(ours, attempt.reported_micros):
        return
    reported = attempt.reported_micros or 0
    metrics.UNDERPRICED.labels(attempt.provider).inc()
    metrics.UNDERPRICED_DOLLARS.labels(attempt.provider).inc((reported - ours) / MICROS)
    log.warning(
        "reported cost is above our price; set it under [prices]",
        route=f"{attempt.provider}/{attempt.upstream_model}",
        attempt=attempt.id,
        reported=format_usd(reported),
        ours=format_usd(ours),
    )
