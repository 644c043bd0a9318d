"""The time of the gateway is the database's, whatever the clock of its machine shows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from harness import StartGateway, sqlalchemy_url
from structlog.testing import capture_logs

from app.db.clock import DatabaseClock
from app.db.database import Database
from app.telemetry.metrics import REGISTRY

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
CLOSE = timedelta(seconds=30)
"""Time a comparison may take on a busy machine, twice."""


@dataclass
class Machine:
    """The clocks of a machine."""

    wall_s: float
    steady_s: float = 1_000

    def clock(self) -> DatabaseClock:
        return DatabaseClock(steady=lambda: self.steady_s, wall=lambda: self.wall_s)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = Database(sqlalchemy_url(database_url), pool_size=1)
    yield database
    await database.close()


def skew() -> float | None:
    return REGISTRY.get_sample_value("gateway_clock_skew_seconds")


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_a_machine_an_hour_off_uses_the_time_of_the_database(db: Database, ahead: timedelta) -> None:
    there = await db.now()
    clock = Machine((there + ahead).timestamp()).clock()
    assert abs(clock() - there - ahead) < CLOSE  # nothing is known of the database yet
    with capture_logs() as logs:
        await clock.synchronise(db)
    assert abs(clock() - there) < CLOSE
    assert clock().tzinfo is UTC
    measured = skew()
    assert measured is not None
    assert abs(measured - ahead.total_seconds()) < CLOSE.total_seconds()
    assert [line["event"] for line in logs] == ["this machine's clock differs from the database's, which is used"]


async def test_a_clock_that_is_set_moves_nothing(db: Database) -> None:
    machine = Machine((await db.now()).timestamp())
    clock = machine.clock()
    await clock.synchronise(db)
    before = clock()
    machine.wall_s += 3_600
    assert clock() == before
    machine.steady_s += 20
    assert clock() == before + timedelta(seconds=20)
    machine.steady_s -= 20
    with capture_logs() as logs:
        await clock.synchronise(db)
        machine.wall_s -= 3_600
        await clock.synchronise(db)
    assert [line["event"] for line in logs] == [
        "this machine's clock differs from the database's, which is used",
        "this machine's clock agrees with the database's again",
    ]


async def test_a_machine_that_slept_catches_up(db: Database) -> None:
    """A steady clock may stand still while the machine is suspended."""
    there = await db.now()
    machine = Machine(there.timestamp())
    clock = machine.clock()
    await clock.synchronise(db)
    machine.steady_s -= 3_600
    assert clock() < there - HOUR + CLOSE
    with capture_logs() as logs:
        await clock.synchronise(db)
    assert abs(clock() - there) < CLOSE
    assert "the database's clock was set" in [line["event"] for line in logs]


async def test_a_slow_comparison_moves_the_time_by_no_less_than_its_own_error(db: Database) -> None:
    there_s = (await db.now()).timestamp()
    readings = iter([0.0, 1_000.0])  # at the start and before the comparison, which takes ten minutes
    clock = DatabaseClock(steady=lambda: next(readings, 1_600.0), wall=lambda: there_s - 1_300 + 200)
    await clock.synchronise(db)
    assert abs(clock().timestamp() - (there_s + 300 + 200)) < CLOSE.total_seconds()
    assert clock().timestamp() == pytest.approx(there_s - 1_100 + 1_600)  # 200 s may be the way there and back


async def test_metrics_show_the_skew(start_gateway: StartGateway) -> None:
    machine = Machine(datetime.now(UTC).timestamp() - 7_200)
    async with start_gateway(its_clock=machine.clock()) as gateway:
        response = await gateway.client.get("/metrics")
        [line] = [line for line in response.text.splitlines() if line.startswith("gateway_clock_skew_seconds ")]
        assert abs(float(line.split()[1]) + 7_200) < CLOSE.total_seconds()
