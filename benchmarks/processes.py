"""Child processes: started, waited for, watched, stopped."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from benchmarks.load import Load, Result

ROOT = Path(__file__).resolve().parent.parent
START_S = 60
STOP_S = 20


class Child:
    """A Python process running one of our modules, in a directory without a .env file."""

    def __init__(self, name: str, folder: Path, arguments: list[str], settings: dict[str, str]) -> None:
        self.log = folder / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        self.started = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                env={**inherited, "PYTHONPATH": str(ROOT), **settings},
                stdout=log,
                stderr=log,
            )
        self._watched = psutil.Process(self._process.pid)

    def wait_for(self, url: str) -> Self:
        """Return once `url` answers. Raises `RuntimeError` with the end of the log when it does not."""
        while time.perf_counter() - self.started < START_S and self._process.poll() is None:
            try:
                urlopen(url, timeout=5).close()
            except (URLError, OSError):
                time.sleep(0.01)
            else:
                return self
        raise RuntimeError(f"{self.log.stem} does not answer at {url}:\n{self.log.read_text()[-3000:]}")

    def cpu_s(self) -> float:
        """CPU seconds of the process itself so far, without its children."""
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        return float(self._watched.memory_info().rss) / 1e6

    @contextmanager
    def peak_rss_mb(self) -> Iterator[Callable[[], float]]:
        """Sample the resident memory 100 times a second while the block lasts."""
        seen, done = [self.rss_mb()], threading.Event()

        def sample() -> None:
            while not done.wait(0.01):
                seen.append(self.rss_mb())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield lambda: max(seen)
        finally:
            done.set()
            thread.join()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load(wanted: Load) -> Result:
    """Run the load generator. Raises `RuntimeError` unless every answer was a success."""
    command = [sys.executable, "-m", "benchmarks.load"]
    payload = json.dumps(asdict(wanted))
    with tempfile.TemporaryFile("w+") as answer:  # not a pipe: after uvloop.run, long writes to one are sometimes cut
        subprocess.run(command, cwd=ROOT, input=payload, stdout=answer, text=True, check=True)
        answer.seek(0)
        result = Result(**json.load(answer))
    if not result.statuses or any(not status.startswith("2") for status in result.statuses):
        raise RuntimeError(f"{wanted.paths[0]} was answered with {result.statuses}")
    return result
