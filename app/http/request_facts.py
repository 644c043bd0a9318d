"""Facts about the current request for its line in the log: ids and names, never a key, a prompt or an address."""

from contextvars import ContextVar

from app.db.models import Video
from app.telemetry import traces
from app.telemetry.logs import loggable

_FACTS: ContextVar[dict[str, str]] = ContextVar("request_facts")
"""A dict that is changed, not replaced: a fact that a child task notes must reach the middleware."""


def collect(request_id: str) -> dict[str, str]:
    """Begin a request; returns the facts, which grow while it is served."""
    facts = {"request": request_id}
    _FACTS.set(facts)
    return facts


def note(**facts: str) -> None:
    """Add facts, or replace earlier ones. Values may be a client's, so they are bounded and printable."""
    _FACTS.get().update({name: loggable(value) for name, value in facts.items()})


def note_video(video: Video) -> None:
    note(video=video.id, project=video.project_id, model=video.model)
    traces.link(video.traceparent)


def request_id() -> str:
    return _FACTS.get()["request"]
