"""The timeline of a video: bars within the axis, whatever the clocks say, and words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.console.timeline import WIDTH, format_span, timeline_of
from app.db import rows
from app.db.models import Attempt, Video
from app.video import AttemptState as S

START = datetime(2026, 11, 27, 12, tzinfo=UTC)


def after(seconds: float | None) -> datetime | None:
    return None if seconds is None else START + timedelta(seconds=seconds)


def attempt(state: S, *moments: float | None, **values: Any) -> Attempt:
    """An attempt with the seconds of its creation, submit, acceptance and end."""
    names = ("created_at", "submitted_at", "accepted_at", "ended_at")
    times = {name: after(moment) for name, moment in zip(names, moments, strict=True)}
    return rows.read_only(Attempt, {"id": "att_1", "output_index": 0, "state": state, **times, **values})


def shown(*attempts: Attempt, now: float = 0) -> list[tuple[list[tuple[str, float, float]], str]]:
    video = rows.read_only(Video, {"created_at": START})
    timeline = timeline_of(video, attempts, START + timedelta(seconds=now))
    return [([(bar.kind, bar.start, bar.width) for bar in row.bars], row.words) for row in timeline.rows]


def test_a_failure_is_followed_by_the_next_route() -> None:
    first = attempt(S.failed, 0, 10, None, 20)
    second = attempt(S.succeeded, 20, 30, 40, 100, id="att_2")
    assert shown(second, first) == [
        ([("waiting", 0, 100), ("submitting", 100, 100)], "waited 10 s, submitted in 10 s, failed"),
        (
            [("waiting", 200, 100), ("submitting", 300, 100), ("running", 400, 600)],
            "waited 10 s, submitted in 10 s, ran and was stored in 60 s, made the file",
        ),
    ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (attempt(S.pending, 0, None, None, None), "waits for its turn, 50 s so far"),
        (attempt(S.submitting, 0, 40, None, None), "waited 40 s, is being submitted, 10 s so far"),
        (attempt(S.running, 0, 1, 2.5, None), "waited 1 s, submitted in 1.5 s, runs, 48 s so far"),
        (attempt(S.pending, 80, None, None, None), "waits for its turn"),
    ],
)
def test_one_that_is_under_way_ends_now(found: Attempt, words: str) -> None:
    [(_, said)] = shown(found, now=50)
    assert said == words


def test_clocks_that_differ_lead_to_no_bar_outside() -> None:
    for moments in ((-5, -3, 2, 1), (0, 0, 0, 0), (10, 5, 3, 0), (0, None, 3, 90)):
        [(bars, _)] = shown(attempt(S.lost, *moments), now=-10)
        assert all(start >= 0 and width > 0 and start + width <= WIDTH for _, start, width in bars), bars


def test_a_video_without_attempts_has_an_axis() -> None:
    timeline = timeline_of(rows.read_only(Video, {"created_at": START}), [], START)
    assert (timeline.rows, timeline.ticks[-1]) == ([], "1 s")


def test_lengths_of_time_are_for_people() -> None:
    assert [format_span(seconds) for seconds in (0, 1.25, 9.99, 42.4, 600, 9_000)] == [
        "0 s",
        "1.2 s",
        "10 s",
        "42 s",
        "10 min",
        "2.5 h",
    ]
