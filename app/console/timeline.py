"""The attempts of a video on one axis of time, as bars and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.db.models import Attempt, Video
from app.video import AttemptState

WIDTH = 1_000
"""Length of the axis in the units of the picture."""
LEAST = 3
"""Shortest bar, so that it can be seen."""
STATES = {
    AttemptState.pending: "waits for its turn",
    AttemptState.submitting: "is being submitted",
    AttemptState.running: "runs",
    AttemptState.storing: "is finished, its file is being stored",
    AttemptState.succeeded: "made the file",
    AttemptState.failed: "failed",
    AttemptState.cancelled: "was cancelled",
    AttemptState.lost: "has an unknown outcome",
}


@dataclass(frozen=True)
class Bar:
    """One step of an attempt."""

    kind: str
    """`waiting`, `submitting` or `running`."""
    start: float
    width: float


@dataclass(frozen=True)
class Row:
    """One attempt."""

    attempt: Attempt
    bars: Sequence[Bar]
    end: float
    """Its end on the axis."""
    words: str

    @property
    def has_failed(self) -> bool:
        """True if its error is the reason why it ended; that of a poll alone is not."""
        state = self.attempt.state
        return self.attempt.ended_at is not None and state not in (AttemptState.succeeded, AttemptState.cancelled)


@dataclass(frozen=True)
class Timeline:
    """All rows, in the order of their outputs and tries."""

    rows: Sequence[Row]
    ticks: Sequence[str]
    """The times below the axis, from its start to its end."""


def timeline_of(video: Video, attempts: Sequence[Attempt], now: datetime) -> Timeline:
    """The timeline from the creation of a video to the end of its last attempt, or until now."""
    ends = [attempt.ended_at or now for attempt in attempts]
    span_s = max(1.0, max(((end - video.created_at).total_seconds() for end in ends), default=1.0))
    ordered = sorted(attempts, key=lambda attempt: (attempt.output_index, attempt.id))
    rows = [_row(attempt, video.created_at, span_s, now) for attempt in ordered]
    return Timeline(rows, [format_span(span_s * part / 4) for part in range(5)])


def _row(attempt: Attempt, start: datetime, span_s: float, now: datetime) -> Row:
    end = attempt.ended_at or now
    ran = "ran and was stored in" if attempt.state is AttemptState.succeeded else "ran"
    moments = [
        ("waiting", "waited", attempt.created_at, attempt.submitted_at or end),
        ("submitting", "submitted in", attempt.submitted_at, attempt.accepted_at or end),
        ("running", ran, attempt.accepted_at, end),
    ]
    bars, words, took_s = [], [], 0.0
    for kind, did, began, ended in moments:
        if began is None or ended < began:
            continue
        place = (began - start).total_seconds() * WIDTH / span_s
        took_s = (ended - began).total_seconds()
        place = min(max(0.0, place), WIDTH - LEAST)
        width = min(max(LEAST, took_s * WIDTH / span_s), WIDTH - place)
        bars.append(Bar(kind, round(place, 1), round(width, 1)))
        words.append(f"{did} {format_span(took_s)}")
    if attempt.ended_at is None and words:
        words[-1] = f"{STATES[attempt.state]}, {format_span(took_s)} so far"
    else:
        words.append(STATES[attempt.state])
    return Row(attempt, bars, bars[-1].start + bars[-1].width if bars else 0, ", ".join(words))


def format_span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
