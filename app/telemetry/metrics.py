"""Metrics of this process. Names follow Prometheus' conventions: a unit at the end, `_total` on counters."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

HTTP_SECONDS = Histogram(
    "gateway_http_request_duration_seconds",
    "Time until the first byte of the response, by route template.",
    ("method", "route", "status"),
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
JOBS = Counter("gateway_jobs_total", "Jobs that reached a state.", ("provider", "model", "status"), registry=REGISTRY)
CAPPED = Counter(
    "gateway_capped_costs_total",
    "Outputs that would have cost more by their measured length than was held for them.",
    ("provider",),
    registry=REGISTRY,
)
CAPPED_DOLLARS = Counter(
    "gateway_capped_cost_dollars_total",
    "Cost by measured length beyond what was held, which was not charged.",
    ("provider",),
    registry=REGISTRY,
)
UNDERPRICED = Counter(
    "gateway_underpriced_costs_total",
    "Outputs for which the upstream reported over 5 % more than they cost by our price.",
    ("provider",),
    registry=REGISTRY,
)
UNDERPRICED_DOLLARS = Counter(
    "gateway_underpriced_cost_dollars_total",
    "Cost reported by upstreams beyond our price, where it is over 5 % more; it was not charged.",
    ("provider",),
    registry=REGISTRY,
)
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
DATABASE_ERRORS = Counter(
    "gateway_database_errors_total", "Statements that the database could not run.", ("kind",), registry=REGISTRY
)
WEBHOOKS = Counter(
    "gateway_webhook_deliveries_total",
    "Webhook tries by outcome: delivered, retried (another try follows), failed (no further try).",
    ("outcome",),
    registry=REGISTRY,
)
QUEUE = Gauge("gateway_attempts", "Unfinished attempts.", ("provider", "state"), registry=REGISTRY)
QUEUE_AGE = Gauge(
    "gateway_queue_age_seconds", "Time since the oldest attempt that waits for a worker became due.", registry=REGISTRY
)

CLOCK_SKEW = Gauge(
    "gateway_clock_skew_seconds",
    "Seconds by which this machine's clock is ahead of the database's.",
    registry=REGISTRY,
)
WORKERS = Gauge("gateway_workers", "Workers that were seen within 30 seconds, of all machines.", registry=REGISTRY)
WORKERS.set(math.nan)  # a process that does not read it does not know
