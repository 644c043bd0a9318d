"""Charts: rows of a report to the shapes of stacked bars, which templates draw as SVG. Nothing here knows HTML.

Across, places are parts of a hundred, so that a chart is as wide as its page; upwards they are pixels.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, floor, log10

MAX_SERIES = 8
REST = "other"
"""The sum of the series behind the first `MAX_SERIES`."""
HEIGHT = 200
"""Pixels of the highest bar."""
TICKS, LABELS = 4, 6
"""Steps of the axis, and labels below the bars, about."""
FILLED = 0.8
"""Part of its place that a bar takes."""
MOST_DAYS, MOST_WEEKS = 100, 104
"""Days with a bar each, then weeks; longer ranges have one for each month."""


@dataclass(frozen=True)
class Series:
    """One colour of the bars, the largest first."""

    number: int
    """From 1 on; 0 for the rest."""
    name: str
    total: float


@dataclass(frozen=True)
class Segment:
    """A part of a bar."""

    series: Series
    value: float
    y: float
    height: float


@dataclass(frozen=True)
class Bar:
    """A day, week or month."""

    since: date
    until: date
    x: float
    width: float
    segments: Sequence[Segment]

    @property
    def total(self) -> float:
        return sum(segment.value for segment in self.segments)

    @property
    def label(self) -> str:
        """Its days in words."""
        return words_of(self.since) if self.since == self.until else f"{words_of(self.since)} to {words_of(self.until)}"


@dataclass(frozen=True)
class Tick:
    """A line across, with a round value."""

    y: float
    value: float


@dataclass(frozen=True)
class Label:
    """A date below a bar."""

    x: float
    words: str
    is_extra: bool
    """True for one that a narrow page leaves out."""


@dataclass(frozen=True)
class Chart:
    """Stacked bars; each day of the range is in one of them."""

    unit: str
    """`day`, `week` or `month`: the time of one bar."""
    series: Sequence[Series]
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    labels: Sequence[Label]


def stacked(rows: Iterable[tuple[date, str, float]], *, since: date, until: date, is_whole: bool = False) -> Chart:
    """Stack values by day and name, from `since` to `until`, both included; `is_whole` values have no fractions."""
    found = list(rows)
    unit, spans = _spans(since, until)
    first_days = [first for first, _ in spans]
    series, of_name = _series(found)
    sums: dict[int, dict[Series, float]] = defaultdict(lambda: defaultdict(float))
    for day, name, value in found:
        sums[_place(first_days, day)][of_name[name]] += value
    highest = max((_height(parts) for parts in sums.values()), default=0)
    step = round_step(highest, is_whole=is_whole)
    count = max(1, ceil(highest / step - 1e-9))
    top = step * count
    slot = 100 / len(spans)
    bars = [
        Bar(first, last, slot * (number + (1 - FILLED) / 2), slot * FILLED, _stack(sums.get(number, {}), series, top))
        for number, (first, last) in enumerate(spans)
    ]
    ticks = [Tick(HEIGHT - HEIGHT * number / count, step * number) for number in range(count + 1)]
    return Chart(unit, series, bars, ticks, _labels(first_days, unit))


def round_step(highest: float, *, is_whole: bool) -> float:
    """The step of an axis up to `highest`: 1, 2 or 5 of some power of ten."""
    if highest <= 0:
        return 1
    wanted = highest / TICKS
    power = 10.0 ** floor(log10(wanted))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted * (1 - 1e-9))
    return max(1, round(step)) if is_whole else step


def words_of(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _spans(since: date, until: date) -> tuple[str, list[tuple[date, date]]]:
    """The unit of the bars, and the first and last day of each."""
    days = (until - since).days + 1
    if days <= MOST_DAYS:
        return "day", [(since + timedelta(days=n), since + timedelta(days=n)) for n in range(days)]
    if days <= MOST_WEEKS * 7:
        firsts = [since + timedelta(days=n) for n in range(0, days, 7)]
        unit = "week"
    else:
        months = range(since.year * 12 + since.month - 1, until.year * 12 + until.month)
        firsts = [since, *(date(month // 12, month % 12 + 1, 1) for month in months[1:])]
        unit = "month"
    lasts = [*(first - timedelta(days=1) for first in firsts[1:]), until]
    return unit, list(zip(firsts, lasts, strict=True))


def _place(firsts: Sequence[date], day: date) -> int:
    """The number of the bar that a day belongs to; `firsts` are the first days of the bars."""
    low, high = 0, len(firsts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if firsts[middle] <= day else (low, middle)
    return low


def _series(rows: Sequence[tuple[date, str, float]]) -> tuple[list[Series], Mapping[str, Series]]:
    """The series, and the one that each name belongs to."""
    totals: dict[str, float] = defaultdict(float)
    for _, name, value in rows:
        totals[name] += value
    names = sorted(totals, key=lambda name: (-totals[name], name))
    kept = [Series(number, name, totals[name]) for number, name in enumerate(names[:MAX_SERIES], 1)]
    of_name = {one.name: one for one in kept}
    rest = names[MAX_SERIES:]
    if not rest:
        return kept, of_name
    other = Series(0, REST, sum(totals[name] for name in rest))
    return [*kept, other], {**of_name, **dict.fromkeys(rest, other)}


def _height(parts: Mapping[Series, float]) -> float:
    return sum(max(0, value) for value in parts.values())


def _stack(parts: Mapping[Series, float], series: Sequence[Series], top: float) -> list[Segment]:
    """The segments of a bar from the bottom up; what is nothing, or less, has no height."""
    segments, y = [], float(HEIGHT)
    for one in series:
        value = parts.get(one, 0)
        if value:
            height = HEIGHT * max(0, value) / top
            y -= height
            segments.append(Segment(one, value, round(y, 2), round(height, 2)))
    return segments


def _labels(firsts: Sequence[date], unit: str) -> list[Label]:
    slot, every = 100 / len(firsts), ceil(len(firsts) / LABELS)
    return [
        Label(slot * (number + 0.5), _written(first, unit), is_extra=number // every % 2 == 1)
        for number, first in enumerate(firsts)
        if number % every == 0
    ]


def _written(first: date, unit: str) -> str:
    match unit:
        case "day":
            return f"{first.day} {first:%b}"
        case "week":
            return words_of(first)
    return f"{first:%b %Y}"
