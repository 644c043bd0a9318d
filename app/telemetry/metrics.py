"""Metrics, and the registry that /metrics shows. Names follow Prometheus' conventions: a unit at the end, `_total` on
counters. docs/monitoring.md explains each.
"""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.settings import metrics_folder
from app.telemetry.processes import AllProcesses, ProcessFigures

disable_created_metrics()
_FOLDER = metrics_folder()

REGISTRY = CollectorRegistry()
_OWN = REGISTRY if _FOLDER is None else None
"""Registry of what each process counts for itself; with several processes `AllProcesses` shows it."""
if _FOLDER is not None:
    REGISTRY.register(AllProcesses(_FOLDER))
REGISTRY.register(ProcessFigures(_FOLDER))


class SharedGauge(Collector):
    """A gauge of the whole gateway, read from the database by the process that is asked. Without a value it is not
    shown: an old one would keep alerts silent."""

    every: ClassVar["list[SharedGauge]"] = []

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self._text, self._labels = name, f"{text} Read by every process: use max, not sum.", labels
        self._values: Mapping[tuple[str, ...], float] = {}
        self.every.append(self)
        REGISTRY.register(self)

    def show(self, values: Mapping[tuple[str, ...], float] | float) -> None:
        """Replace all values, by their labels."""
        self._values = values if isinstance(values, Mapping) else {(): values}

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self.name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self.name, self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return [family]


def forget_shared() -> None:
    """Show no shared gauge: the database cannot be read."""
    for gauge in SharedGauge.every:
        gauge.show({})


# Requests

HTTP_SECONDS = Histogram(
    "gateway_http_request_duration_seconds",
    "Time until the first byte of the response, by route template.",
    ("method", "route", "status"),
    registry=_OWN,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

# Jobs

CREATES = Counter(
    "gateway_creates_total",
    "Jobs that were created, by the first route of their plan.",
    ("provider", "model"),
    registry=_OWN,
)
JOBS = Counter(
    "gateway_jobs_total",
    "Jobs that ended: completed, failed, cancelled; failed ones by cause: client, upstream, gateway.",
    ("provider", "model", "status", "cause"),
    registry=_OWN,
)
JOB_SECONDS = Histogram(
    "gateway_job_duration_seconds",
    "Time from the create to the end of completed jobs.",
    ("provider", "model"),
    registry=_OWN,
    buckets=(10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600),
)
QUEUE = SharedGauge("gateway_attempts", "Unfinished attempts.", ("provider", "state"))
QUEUE_AGE = SharedGauge(
    "gateway_queue_age_seconds", "Time since the oldest attempt that waits for a worker became due."
)
PROVIDER_QUEUE_AGE = SharedGauge(
    "gateway_provider_queue_age_seconds",
    "Time since the oldest attempt of a provider that waits for a worker became due.",
    ("provider",),
)
REPAIRS = SharedGauge("gateway_repairs_waiting", "Submits of unknown outcome that wait for the operator's decision.")
WORKERS = SharedGauge("gateway_workers", "Workers that were seen within 30 seconds, of all machines.")

# Upstreams

UPSTREAM_SECONDS = Histogram(
    "gateway_upstream_request_duration_seconds",
    "Time of one call to an upstream.",
    ("provider", "verb"),
    registry=_OWN,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
UPSTREAM_ERRORS = Counter(
    "gateway_upstream_errors_total",
    "Calls to an upstream that failed.",
    ("provider", "verb", "code"),
    registry=_OWN,
)
ACCOUNT_REFUSALS = Counter(
    "gateway_account_refusals_total",
    "Submits and polls that an upstream refused because of our key or account there, or its credit.",
    ("provider", "code"),
    registry=_OWN,
)
PROVIDER_OPEN = SharedGauge(
    "gateway_provider_open",
    "Open circuits of a provider: that of all projects, and those of single projects.",
    ("provider", "scope"),
)

# Money

COST = Counter(
    "gateway_cost_usd_total",
    "Cost of settled outputs in US dollars; the ledger is exact.",
    ("project", "provider", "model"),
    registry=_OWN,
)
HELD = SharedGauge("gateway_held_usd", "Money held for outputs that are not settled, in US dollars.", ("provider",))
BUDGET_USED = SharedGauge(
    "gateway_budget_used_ratio", "Part of a project's monthly budget that is spent or held.", ("project",)
)
CAPPED = Counter(
    "gateway_capped_costs_total",
    "Outputs that would have cost more by their measured length than was held for them.",
    ("provider",),
    registry=_OWN,
)
CAPPED_DOLLARS = Counter(
    "gateway_capped_cost_dollars_total",
    "Cost by measured length beyond what was held, which was not charged.",
    ("provider",),
    registry=_OWN,
)
UNDERPRICED = Counter(
    "gateway_underpriced_costs_total",
    "Outputs for which the upstream reported over 5 % more than they cost by our price.",
    ("provider",),
    registry=_OWN,
)
UNDERPRICED_DOLLARS = Counter(
    "gateway_underpriced_cost_dollars_total",
    "Cost reported by upstreams beyond our price, where it is over 5 % more; it was not charged.",
    ("provider",),
    registry=_OWN,
)

# Webhooks

WEBHOOKS = Counter(
    "gateway_webhook_deliveries_total",
    "Webhook tries by outcome: delivered, retried (another try follows), failed (no further try).",
    ("outcome",),
    registry=_OWN,
)
WEBHOOKS_PENDING = SharedGauge("gateway_webhooks_pending", "Deliveries that are not delivered yet.")
WEBHOOK_AGE = SharedGauge("gateway_webhook_oldest_seconds", "Age of the oldest delivery that is not delivered yet.")
ENDPOINTS_DISABLED = SharedGauge("gateway_webhook_endpoints_disabled", "Webhook endpoints that are disabled.")

# Database, store, processes

DATABASE_ERRORS = Counter(
    "gateway_database_errors_total", "Statements that the database could not run.", ("kind",), registry=_OWN
)
DATABASE_IN_USE = Gauge(
    "gateway_database_connections_in_use",
    "Connections of this process to the database that are in use or waited for, by pool.",
    ("pool",),
    registry=_OWN,
    multiprocess_mode="livesum",
)
DATABASE_LIMIT = Gauge(
    "gateway_database_connections_limit",
    "Most connections of this process to the database at once, by pool.",
    ("pool",),
    registry=_OWN,
    multiprocess_mode="livesum",
)
STORE_ERRORS = Counter(
    "gateway_store_errors_total",
    "Operations of the file store that failed: write, read, delete, list, sign.",
    ("op",),
    registry=_OWN,
)
CLOCK_SKEW = Gauge(
    "gateway_clock_skew_seconds",
    "Seconds by which this machine's clock is ahead of the database's.",
    registry=_OWN,
    multiprocess_mode="livemostrecent",
)
BUILD = Gauge(
    "gateway_build_info",
    "Always 1; the labels are the release of the gateway and the version of Python.",
    ("version", "python"),
    registry=_OWN,
    multiprocess_mode="livemax",
)
BUILD.labels(version("video-gateway"), platform.python_version()).set(1)
