"""Shapes of charts: every day has its place, parts are stacked in order, steps are round."""

from datetime import date, timedelta

import pytest

from app.console import charts
from app.console.charts import HEIGHT, MAX_SERIES, REST, stacked

MONDAY = date(2026, 11, 2)


def on(number: int) -> date:
    return MONDAY + timedelta(days=number)


def test_days_without_use_are_there_and_parts_are_stacked_from_the_bottom() -> None:
    rows = [(on(0), "a", 3_000_000.0), (on(0), "b", 1_000_000.0), (on(2), "b", 1_000_000.0)]
    chart = stacked(rows, since=on(0), until=on(3), is_whole=True)
    assert chart.unit == "day"
    assert [(one.number, one.name, one.total) for one in chart.series] == [(1, "a", 3e6), (2, "b", 2e6)]
    assert [bar.total for bar in chart.bars] == [4e6, 0, 1e6, 0]
    assert [bar.label for bar in chart.bars][:2] == ["2 Nov 2026", "3 Nov 2026"]
    assert [(tick.value, tick.y) for tick in chart.ticks] == [(n * 1e6, HEIGHT * (1 - n / 4)) for n in range(5)]
    bottom, above = chart.bars[0].segments
    assert (bottom.series.name, bottom.y, bottom.height) == ("a", HEIGHT / 4, HEIGHT * 3 / 4)
    assert (above.series.name, above.y, above.height) == ("b", 0, HEIGHT / 4)
    assert chart.bars[0].x == pytest.approx(2.5)
    assert chart.bars[-1].x + chart.bars[-1].width == pytest.approx(97.5)


def test_series_behind_the_eighth_are_one() -> None:
    rows = [(on(0), f"model {number}", 10.0 + number) for number in range(MAX_SERIES + 3)]
    chart = stacked(rows, since=on(0), until=on(0))
    assert [one.number for one in chart.series] == [*range(1, MAX_SERIES + 1), 0]
    assert chart.series[0].name == "model 10"
    assert (chart.series[-1].name, chart.series[-1].total) == (REST, 10 + 11 + 12)
    assert chart.bars[0].total == sum(value for _, _, value in rows)


def test_a_series_may_be_named_as_the_rest_is() -> None:
    rows = [(on(0), name, 1.0) for name in (REST, *(f"z{number}" for number in range(MAX_SERIES)))]
    chart = stacked(rows, since=on(0), until=on(0))
    assert [(one.number, one.total) for one in chart.series if one.name == REST] == [(1, 1), (0, 1)]


@pytest.mark.parametrize(
    ("days", "unit", "bars", "last"),
    [
        (1, "day", 1, 1),
        (100, "day", 100, 1),
        (101, "week", 15, 3),
        (728, "week", 104, 7),
        (729, "month", 24, 30),
        (3_700, "month", 122, 18),
    ],
)
def test_long_ranges_have_bars_of_weeks_or_months(days: int, unit: str, bars: int, last: int) -> None:
    since = date(2026, 11, 2)
    until = since + timedelta(days=days - 1)
    chart = stacked([(since + timedelta(days=n), "a", 1.0) for n in range(days)], since=since, until=until)
    assert (chart.unit, len(chart.bars)) == (unit, bars)
    assert [bar.total for bar in chart.bars] == [(bar.until - bar.since).days + 1 for bar in chart.bars]
    assert (chart.bars[0].since, chart.bars[-1].until, chart.bars[-1].total) == (since, until, last)
    assert 1 <= len(chart.labels) <= charts.LABELS


@pytest.mark.parametrize(
    ("highest", "is_whole", "step"),
    [
        (0, True, 1),
        (1, True, 1),
        (3, True, 1),
        (5, True, 2),
        (4, False, 1),
        (0.3, False, 0.1),
        (25_000, True, 10_000),
        (400_000, True, 100_000),
        (410_000, True, 200_000),
        (2_100_000_000, True, 1_000_000_000),
    ],
)
def test_steps_are_round(highest: float, is_whole: bool, step: float) -> None:
    assert charts.round_step(highest, is_whole=is_whole) == pytest.approx(step)


def test_no_bar_is_higher_than_the_axis() -> None:
    for highest in (1, 7, 33, 99, 100, 101, 999_999, 12_345_678):
        chart = stacked([(on(0), "a", highest * 0.4), (on(0), "b", highest * 0.6)], since=on(0), until=on(0))
        assert chart.ticks[-1].value >= highest * 0.999999
        assert min(segment.y for segment in chart.bars[0].segments) >= -0.01
        assert max(segment.height for segment in chart.bars[0].segments) <= HEIGHT


def test_nothing_and_less_than_nothing_have_no_height() -> None:
    chart = stacked([(on(0), "a", 0.0), (on(1), "a", -5.0)], since=on(0), until=on(1))
    assert [bar.total for bar in chart.bars] == [0, -5]
    assert [segment.height for bar in chart.bars for segment in bar.segments] == [0]
    assert [tick.value for tick in chart.ticks] == [0, 1]


def test_every_other_label_may_be_left_out() -> None:
    chart = stacked([], since=on(0), until=on(29))
    assert [(label.words, label.is_extra) for label in chart.labels][:3] == [
        ("2 Nov", False),
        ("7 Nov", True),
        ("12 Nov", False),
    ]
