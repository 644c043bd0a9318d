"""Models of all tables. A row of `videos` is what a client sees, a row of `attempts` is one task at one upstream.

Each table has one writer: `app/jobs/` writes status and state of a job, `app/accounts/` projects, keys and the ledger,
`app/webhooks/` endpoints and deliveries (CONTRIBUTING, "One writer per fact"). Invariants are enforced by constraints
and triggers (`app/db/functions/`): ledger and audit log are append-only, a job beyond a limit is refused, a video with
held money cannot be deleted.
"""

from sqlalchemy.orm import configure_mappers

from app.db.models.accounts import Key, LedgerEntry, Meter, Project, RequestRate
from app.db.models.audit import AuditEntry
from app.db.models.base import Base
from app.db.models.console import ConsoleLink, ConsoleSession
from app.db.models.deployment import DeploymentFact, WorkerProcess
from app.db.models.jobs import LIVE, NO_FILE, Attempt, Character, ProviderHealth, Video
from app.db.models.usage import ClosedDay, DeletedVideo, KeyUse, UsageDay
from app.db.models.webhooks import Delivery, DeliveryTry, WebhookEndpoint, WebhookSecret

__all__ = [
    "LIVE",
    "NO_FILE",
    "Attempt",
    "AuditEntry",
    "Base",
    "Character",
    "ClosedDay",
    "ConsoleLink",
    "ConsoleSession",
    "DeletedVideo",
    "Delivery",
    "DeliveryTry",
    "DeploymentFact",
    "Key",
    "KeyUse",
    "LedgerEntry",
    "Meter",
    "Project",
    "ProviderHealth",
    "RequestRate",
    "UsageDay",
    "Video",
    "WebhookEndpoint",
    "WebhookSecret",
    "WorkerProcess",
]

configure_mappers()  # at import: `rows.read_only` bypasses the constructor that would do it
