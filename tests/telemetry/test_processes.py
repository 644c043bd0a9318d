"""Metrics in the files of several processes, which the processes of one server share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from app.telemetry.processes import AllProcesses, ProcessFigures, keep_ended, shared_metrics

PROCESS = """
import os, sys
from prometheus_client import Counter, Gauge, Histogram
Counter("jobs_total", "Jobs.", ("status",)).labels("completed").inc(int(sys.argv[1]))
Histogram("took_seconds", "Time.", buckets=(1, 10)).observe(int(sys.argv[1]))
Gauge("in_use", "Connections.", multiprocess_mode="livesum").set(int(sys.argv[1]))
print(os.getpid())
"""


def count(folder: Path, number: int) -> int:
    """Run a process that counts so many in its files of the folder; returns its id."""
    command = [sys.executable, "-c", PROCESS, str(number)]
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    return int(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)


@pytest.fixture
def registry(tmp_path: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(AllProcesses(tmp_path))
    return registry


def sums(registry: CollectorRegistry) -> tuple[float | None, ...]:
    jobs = registry.get_sample_value("jobs_total", {"status": "completed"})
    quick = registry.get_sample_value("took_seconds_bucket", {"le": "10.0"})
    took = registry.get_sample_value("took_seconds_sum"), registry.get_sample_value("took_seconds_count")
    return jobs, quick, *took, registry.get_sample_value("in_use")


def test_counters_of_ended_processes_stay_and_their_gauges_go(tmp_path: Path, registry: CollectorRegistry) -> None:
    first, second = count(tmp_path, 5), count(tmp_path, 20)
    (tmp_path / f"counter_{os.getpid()}.db").touch()  # of a process that starts just now
    assert sums(registry) == (25, 1, 25, 2, 25)
    keep_ended(tmp_path, {first, second, os.getpid()})
    assert sums(registry) == (25, 1, 25, 2, 25)
    (tmp_path / f"counter_{os.getpid()}.db").unlink()
    keep_ended(tmp_path, {second})
    assert sums(registry) == (25, 1, 25, 2, 20)
    third = count(tmp_path, 1)
    keep_ended(tmp_path, {third})
    assert sums(registry) == (26, 2, 26, 3, 1)
    keep_ended(tmp_path, set())
    assert sums(registry) == (26, 2, 26, 3, None)
    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db", "histogram_ended.db", "lock"}


def test_a_broken_file_of_an_ended_process_ends_nothing(tmp_path: Path, registry: CollectorRegistry) -> None:
    running = count(tmp_path, 5)
    (tmp_path / "counter_1.db").write_bytes(b"\xff\x00\x00\x00 broken")
    with capture_logs() as logs:
        keep_ended(tmp_path, {running})
    assert [line["event"] for line in logs] == ["metrics of an ended process lost"]
    assert sums(registry) == (5, 1, 5, 1, 5)
    assert not (tmp_path / "counter_1.db").exists()


def test_the_folder_is_named_in_the_environment_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    with shared_metrics() as folder:
        assert folder.stat().st_mode & 0o077 == 0, "for this user alone"
        count(folder, 1)
        registry = CollectorRegistry()
        registry.register(AllProcesses(folder))
        assert sums(registry)[0] == 1
    assert not folder.exists()


def test_figures_of_each_process_have_its_id(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(ProcessFigures(tmp_path))
    (tmp_path / f"counter_{count(tmp_path, 1)}.db").touch()  # it has ended
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        (tmp_path / f"counter_{process.pid}.db").touch()
        found = {(sample.name, sample.labels["pid"]) for family in registry.collect() for sample in family.samples}
        process.communicate(b"\n")
    assert ("process_resident_memory_bytes", str(process.pid)) in found
    assert {pid for _, pid in found} == {str(process.pid)}
