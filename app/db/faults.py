"""Faults of the database: what makes it unavailable, in words, apart from statements that are wrong.

A fault passes by itself or by the operator's hand; whatever met it is tried again later. The words are for logs and
/readyz; a client reads only that it should try again.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import psycopg_pool
import sqlalchemy as sa

from app.settings import ConfigurationError
from app.telemetry.logs import log
from app.telemetry.metrics import DATABASE_ERRORS

LOG_GAP_S = 10.0
"""Shortest interval between two lines of one event and kind."""

TEXTS = {
    "unreachable": "the database cannot be reached",
    "starting_up": "the database is starting up",
    "shutting_down": "the database is shutting down",
    "read_only": "the database is read-only: it is a standby, or was switched to read-only",
    "disk_full": "the database's disk is full",
    "io_error": "the database cannot read or write its files",
    "out_of_memory": "the database is out of memory",
    "limit_exceeded": "a limit in the database's configuration is exceeded",
    "too_many_connections": "the database has no free connection: raise max_connections or the role's limit, or lower "
    "GATEWAY_DATABASE_POOL_SIZE",
    "pool_exhausted": "all connections of this process are in use: raise GATEWAY_DATABASE_POOL_SIZE",
    "prepared_statements": "a pooler in between mixed up prepared statements",
    "cancelled": "the database cancelled the statement: a time limit was reached, or an operator did it",
    "conflict": "other transactions were in the way",
    "login_refused": "the database refuses the login",
    "internal": "the database reported an internal error",
}
"""Every kind of fault, in words."""
WRITE_KINDS = frozenset({"read_only", "disk_full", "io_error"})
"""Faults of writes, while reads may well succeed; logged as errors, as they do not pass by themselves."""
OLD_CONNECTION_KINDS = frozenset({"read_only", "shutting_down", "unreachable"})
"""Faults after which other connections are probably of no use: broken, or to a server that is no longer the primary."""
UNDONE_KINDS = frozenset(
    {
        "starting_up",
        "read_only",
        "disk_full",
        "out_of_memory",
        "limit_exceeded",
        "too_many_connections",
        "pool_exhausted",
        "prepared_statements",
        "conflict",
        "login_refused",
    }
)

_STATES = {
    "25006": "read_only",
    "25P03": "cancelled",  # idle_in_transaction_session_timeout
    "25P04": "cancelled",  # transaction_timeout
    "26000": "prepared_statements",
    "3D000": "login_refused",
    "40001": "conflict",
    "40P01": "conflict",
    "42P05": "prepared_statements",
    "55P03": "conflict",
    "57014": "cancelled",
    "57P01": "shutting_down",
    "57P02": "shutting_down",
    "57P03": "starting_up",
    "57P04": "login_refused",
    "57P05": "cancelled",  # idle_session_timeout
    "53100": "disk_full",
    "53200": "out_of_memory",
    "53300": "too_many_connections",
    "XX001": "io_error",  # data corrupted
    "XX002": "io_error",  # index corrupted
}
_CLASSES = {
    "08": "unreachable",
    "28": "login_refused",
    "53": "limit_exceeded",
    "57": "cancelled",
    "58": "io_error",
    "XX": "internal",
}
"""Kinds by the class of an SQLSTATE, for those that `_STATES` does not name. The rest of class 25 are mistakes in the
order of statements."""
_WORDS = (
    (r"too many (connections|clients)|connection slots are reserved|connections for role", "too_many_connections"),
    (r"no more connections allowed", "too_many_connections"),  # PgBouncer
    (r"is starting up|not (yet )?accepting connections|in recovery mode", "starting_up"),
    (r"is shutting down|administrator command", "shutting_down"),
    (r"session is read-only|server is in hot standby mode", "read_only"),
    (r"authentication failed|no pg_hba.conf entry|(role|database) \"[^\"]*\" does not exist", "login_refused"),
)
"""Kinds by words of libpq and of servers that refuse a connection, for which libpq has no SQLSTATE."""


@dataclass(frozen=True)
class Fault:
    """One reason for which the database cannot do its work now."""

    kind: str
    detail: str = ""
    """The first line of the error, for the log."""

    @property
    def text(self) -> str:
        return TEXTS[self.kind]

    @property
    def is_undone(self) -> bool:
        """True when certainly nothing was written; after others the commit may have succeeded all the same."""
        return self.kind in UNDONE_KINDS


def read_fault(error: BaseException) -> Fault | None:
    """The fault that an exception of SQLAlchemy, psycopg or its pool means; None for any other exception, such as that
    of a wrong statement."""
    if isinstance(error, psycopg_pool.PoolTimeout) and error.__cause__ is not None:
        error = error.__cause__  # of the connection that could not be made
    if isinstance(error, sa.exc.TimeoutError | psycopg_pool.PoolTimeout | psycopg_pool.TooManyRequests):
        return Fault("pool_exhausted")
    lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    found = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if not isinstance(found, psycopg.Error):
        return None
    detail = _first_line(found)
    kind = _by_state(found.sqlstate, detail)
    if lost or (found.sqlstate is None and isinstance(found, psycopg.OperationalError | psycopg.InterfaceError)):
        kind = kind or _by_words(detail)
    return None if kind is None else Fault(kind, detail)


@contextmanager
def explained() -> Iterator[None]:
    """Turn a fault into a `ConfigurationError` in words, for commands and for the start of a process."""
    try:
        yield
    except Exception as error:
        fault = read_fault(error)
        if fault is None:
            raise
        raise ConfigurationError(f"{fault.text} ({fault.detail})" if fault.detail else fault.text) from None


def is_unavailable(error: BaseException) -> bool:
    """Return True if `error` is a fault of the database, False for a wrong statement."""
    return read_fault(error) is not None


def _by_state(state: str | None, detail: str) -> str | None:
    if state is None:
        return None
    if state.startswith("08") and "prepared statement" in detail:
        return "prepared_statements"
    return _STATES.get(state) or _CLASSES.get(state[:2])


def _by_words(detail: str) -> str:
    return next((kind for words, kind in _WORDS if re.search(words, detail)), "unreachable")


def _first_line(error: psycopg.Error) -> str:
    lines = (error.diag.message_primary or str(error)).strip().splitlines()
    return lines[0].strip()[:300] if lines else type(error).__name__


@dataclass
class FaultLog:
    """Counts faults, and writes at most one line of an event and kind in ten seconds."""

    _written: dict[tuple[str, str], float] = field(default_factory=dict)
    _suppressed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, fault: Fault) -> None:
        DATABASE_ERRORS.labels(fault.kind).inc()
        self.write("database unavailable", fault)

    def write(self, event: str, fault: Fault) -> None:
        key, now = (event, fault.kind), time.monotonic()
        if now - self._written.get(key, float("-inf")) < LOG_GAP_S:
            self._suppressed[key] += 1
            return
        self._written[key] = now
        write = log.error if fault.kind in WRITE_KINDS else log.warning
        write(event, kind=fault.kind, reason=fault.text, detail=fault.detail, suppressed=self._suppressed.pop(key, 0))
