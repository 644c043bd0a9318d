"""Metrics of several processes of one server: each keeps its values in a file of a common folder, and the one that is
asked adds them up.

The parent makes the folder before it starts the others, and names it in their environment. It also adds the counters of
those that have ended to a file of their own: the sums do not fall, and the folder does not grow with each restart.
"""

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app.settings import share_metrics
from app.telemetry.logs import log

IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder with a random name is made in it
"""File system without a disk, used if there is one: a disk that is full would kill a process at its next write."""
ENDED = "ended"
"""The place of the process id in the names of the files of ended processes."""


@contextmanager
def shared_metrics() -> Iterator[Path]:
    """Make the folder for the processes that are started in the block; it is deleted at the end."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="video-gateway-metrics-", dir=place, ignore_cleanup_errors=True) as name:
        share_metrics(Path(name))
        yield Path(name)


def keep_ended(folder: Path, running: Collection[int]) -> None:
    """Add the counters of the processes that are not running any more to those that ended before; their gauges go."""
    for path in folder.glob("*.db"):
        kind, _, pid = path.stem.rpartition("_")
        if not pid.isdigit() or int(pid) in running:
            continue
        with _locked(folder, fcntl.LOCK_EX):
            try:
                if not kind.startswith("gauge"):
                    _add(path, folder / f"{kind}_{ENDED}.db")
            except Exception:  # counters that are lost must not end the server
                log.exception("metrics of an ended process lost", pid=int(pid))
            path.unlink()


def _add(path: Path, total: Path) -> None:
    values = MmapedDict(str(total))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
            values.write_value(key, values.read_value(key)[0] + value, 0)
    finally:
        values.close()


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Keep a reading from seeing the counters of an ended process twice or not at all."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, how)
        yield


class AllProcesses(Collector):
    """The metrics in the files of a folder, added up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        with _locked(self._folder, fcntl.LOCK_SH):
            # An empty file is being made: its process starts just now.
            files = [str(path) for path in self._folder.glob("*.db") if path.stat().st_size]
            return list(MultiProcessCollector.merge(files))


class ProcessFigures(Collector):
    """Memory, files, CPU time and start of this process; with a folder, of each process that has a file in it, by the
    label `pid`. Only on Linux."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        if self._folder is None:
            return ProcessCollector(registry=None).collect()
        families: dict[str, Metric] = {}
        for pid in sorted({path.stem.rpartition("_")[2] for path in self._folder.glob("*.db")} - {ENDED}, key=int):
            for found in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {**sample.labels, "pid": pid}, sample.value)
        return families.values()
