"""The measurements; the aims are in `__main__.py`."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.request import Request, urlopen

from app.db import embedded
from benchmarks.load import Load, Result
from benchmarks.processes import Child, free_port, load
from benchmarks.seed import REQUEST, Seed

KEY, CROWDS_KEY = "sk-bench-0123456789", "sk-crowd-0123456789"
FILE_BYTES = 16 * 2**20
VIDEOS = 1_000
IN_FLIGHT = 1_000
DOWNLOADS = 64
POLLS_PER_S = 200
"""1,000 attempts, each polled every 5 s."""
FIRST_POLL_S = 4.4
"""The gap grows by 1.15 a poll: 4.4, 5.06 and 5.8 s are about 5 s over the 15 s measured."""
SETTLE_S = 2
CROWD = 1_000
"""Jobs of one project in front of those of another."""
SLOWNESS_S = (0.0, 2.0)
"""Times that upstreams take to answer a submit."""
SEEN = 20
"""Jobs of the other project."""

ShowStatus = Callable[[str], None]
Unit = Literal["1/s", "MB/s"]


@dataclass(frozen=True)
class Effort:
    """Number and length of the measurements."""

    rounds: int
    run_s: float
    idle_s: float
    poll_s: float
    connections: int


@dataclass(frozen=True)
class Compared:
    """Runs of the gateway and of its baseline: in turns, so that other load on the machine affects both."""

    unit: Unit
    gateway: list[Result]
    raw: list[Result]
    """The same work in a hand-written route."""
    bare: list[Result]
    """A bare route that does nothing; none for files."""

    def speed(self, runs: list[Result]) -> float:
        return statistics.median(self._speed(run) for run in runs)

    def _speed(self, run: Result) -> float:
        return run.per_s if self.unit == "1/s" else run.mb_per_s

    def percentile_ms(self, percent: int) -> float:
        """Percentile of the gateway's latencies."""
        return statistics.quantiles([ms for run in self.gateway for ms in run.latencies_ms], n=100)[percent - 1]

    @property
    def ratio(self) -> float:
        """The gateway's speed relative to `raw`."""
        pairs = zip(self.gateway, self.raw, strict=True)
        return statistics.median(self._speed(ours) / self._speed(theirs) for ours, theirs in pairs)


@dataclass(frozen=True)
class Start:
    first_s: float
    """With an empty data directory."""
    later_s: float


@dataclass(frozen=True)
class Memory:
    rss_mb: float
    """After the load of the other measurements."""
    peak_mb: float
    """During `DOWNLOADS` at once."""


@dataclass(frozen=True)
class Polling:
    per_s: float
    cores: float
    """Scaled to `POLLS_PER_S`."""


@dataclass(frozen=True)
class Neighbours:
    """Median time from a create to its submit at the upstream."""

    alone_ms: float
    behind_ms: float
    """While `CROWD` jobs of another project wait."""


@dataclass(frozen=True)
class Flood:
    """Creates as fast as they are answered, while a worker submits them to an upstream."""

    delay_s: float
    """Time that the upstream takes to answer a submit."""
    processes: int
    """1: API and worker in one process; 2: one each."""
    create: Result
    accepted_per_s: float
    """Submits that the upstream answered meanwhile."""
    cpu_ms: float
    """CPU of the gateway's processes for one create and its part of the submits."""


@dataclass(frozen=True)
class Report:
    create: Compared
    get: Compared
    content: Compared
    memory: Memory
    idle_cores: float
    polling: Polling
    neighbours: Neighbours
    floods: list[Flood]
    start: Start


class Bench:
    """One data directory, and the servers that are started on it."""

    def __init__(self, folder: Path, effort: Effort, show_status: ShowStatus) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._effort = effort
        self._show_status = show_status

    def run(self) -> Report:
        start = self._start()
        server = embedded.start(self._data)  # kept running between one gateway and the next
        try:
            url = server.get_uri()
            with self._gateway("--no-worker") as (child, port):
                load(replace(_create(port), connections=1, duration_s=0.1))
                seed = Seed(url)
                create, get, content, memory = self._load(child, port, url, seed)
            seed.clear()
            floods = [self._flood(seed, delay_s, split=split) for delay_s in SLOWNESS_S for split in (False, True)]
            idle, polling, neighbours = self._idle(), self._polling(seed), self._neighbours(seed)
            return Report(create, get, content, memory, idle, polling, neighbours, floods, start)
        finally:
            server.cleanup()

    # Processes

    @contextmanager
    def _child(self, name: str, address: str, arguments: list[str], **settings: str) -> Iterator[Child]:
        child = Child(name, self._folder, arguments, settings)
        try:
            yield child.wait_for(f"http://127.0.0.1:{address}")
        finally:
            child.stop()

    @contextmanager
    def _gateway(self, *options: str, **more: str) -> Iterator[tuple[Child, int]]:
        port = free_port()
        settings = {"GATEWAY_DATA_DIR": str(self._data), "GATEWAY_API_KEYS": KEY, "GATEWAY_PORT": str(port)} | more
        with self._child("gateway", f"{port}/readyz", ["app.cli.main", "serve", *options], **settings) as child:
            yield child, port

    # Measurements

    def _start(self) -> Start:
        took = []
        for which in ("first", "later"):
            self._show_status(f"start-up: {which}")
            with self._gateway() as (child, _):
                took.append(time.perf_counter() - child.started)
        return Start(*took)

    def _load(self, gateway: Child, port: int, url: str, seed: Seed) -> tuple[Compared, Compared, Compared, Memory]:
        videos = seed.running(VIDEOS, provider="bench", base_url="", due_s=3_600)
        finished, file = seed.completed(self._data / "media", b"\0" * FILE_BYTES)
        download = Load(port, [f"/v1/videos/{finished}/content"], key=KEY)
        other = free_port()
        with self._child("baseline", f"{other}/bare/1", ["benchmarks.baseline", str(other), url, str(file)]):
            get = self._turns(
                "GET",
                "1/s",
                gateway=Load(port, [f"/v1/videos/{video}" for video in videos], key=KEY),
                raw=Load(other, [f"/raw/{video}" for video in videos]),
                bare=Load(other, [f"/bare/{video}" for video in videos]),
            )
            content = self._turns("content", "MB/s", gateway=download, raw=Load(other, ["/file"]))
            memory = self._memory(gateway, download)
            create = self._turns(
                "create",
                "1/s",
                gateway=_create(port),
                raw=Load(other, ["/raw"], json.dumps(REQUEST)),
                bare=Load(other, ["/bare"], json.dumps(REQUEST)),
            )
        return create, get, content, memory

    def _turns(self, name: str, unit: Unit, **loads: Load) -> Compared:
        effort = self._effort
        runs: dict[str, list[Result]] = {"gateway": [], "raw": [], "bare": []}
        for number in range(effort.rounds):
            for target, wanted in loads.items():
                self._show_status(f"{name}: {target}, round {number + 1} of {effort.rounds}")
                runs[target].append(load(replace(wanted, connections=effort.connections, duration_s=effort.run_s)))
        return Compared(unit, **runs)

    def _memory(self, gateway: Child, download: Load) -> Memory:
        self._show_status(f"memory: {DOWNLOADS} downloads at once")
        before_mb = gateway.rss_mb()
        with gateway.peak_rss_mb() as peak_mb:
            load(replace(download, connections=DOWNLOADS))
            return Memory(before_mb, peak_mb())

    def _idle(self) -> float:
        with self._gateway("--worker") as (child, _):
            self._show_status(f"idle worker: {self._effort.idle_s:g} s")
            time.sleep(SETTLE_S)
            return self._cores(child, self._effort.idle_s)

    def _polling(self, seed: Seed) -> Polling:
        port = free_port()
        base_url, count_url = f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}/polls"
        settings = {
            "GATEWAY_DATA_DIR": str(self._data),
            "GATEWAY_PROVIDERS__BENCH__KIND": "openai",
            "GATEWAY_PROVIDERS__BENCH__BASE_URL": base_url,
            "GATEWAY_PROVIDERS__BENCH__POLL_INTERVAL_S": str(FIRST_POLL_S),
        }
        with self._child("upstream", f"{port}/polls", ["benchmarks.upstream", str(port)]):
            seed.running(IN_FLIGHT, provider="bench", base_url=base_url, due_s=FIRST_POLL_S)
            with self._child("worker", f"{port}/polls", ["app.cli.main", "worker"], **settings) as worker:
                self._show_status(f"polling: {IN_FLIGHT} in flight, {self._effort.poll_s:g} s")
                while _count(count_url) < POLLS_PER_S:
                    time.sleep(0.05)
                before, started = _count(count_url), time.perf_counter()
                cores = self._cores(worker, self._effort.poll_s)
                per_s = (_count(count_url) - before) / (time.perf_counter() - started)
        seed.clear()
        return Polling(per_s, cores * POLLS_PER_S / per_s)

    def _neighbours(self, seed: Seed) -> Neighbours:
        upstream = free_port()
        self._show_status(f"neighbours: {CROWD} jobs in front")
        settings = {
            "GATEWAY_PROVIDERS__BENCH__KIND": "openai",
            "GATEWAY_PROVIDERS__BENCH__BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "GATEWAY_API_KEYS": f"{KEY},{CROWDS_KEY}",
        }
        with (
            self._child("upstream", f"{upstream}/polls", ["benchmarks.upstream", str(upstream)]),
            self._gateway("--worker", **settings) as (_, port),
        ):

            def median_ms(name: str) -> float:
                asked = {}
                for number in range(SEEN):
                    asked[f"{name} {number}"] = time.time()
                    _ask_for(port, KEY, f"{name} {number}")
                while not asked.keys() <= (seen := _submits(upstream)).keys():
                    time.sleep(0.05)
                return statistics.median(1_000 * (seen[prompt] - at) for prompt, at in asked.items())

            alone_ms = median_ms("alone")
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda number: _ask_for(port, CROWDS_KEY, f"crowd {number}"), range(CROWD)))
            behind_ms = median_ms("behind")
        seed.clear()
        return Neighbours(alone_ms, behind_ms)

    def _flood(self, seed: Seed, delay_s: float, *, split: bool) -> Flood:
        upstream, folder = free_port(), str(self._data)
        self._show_status(f"flood: upstream of {delay_s:g} s, {'API and worker apart' if split else 'one process'}")
        settings = {
            "GATEWAY_PROVIDERS__BENCH__KIND": "openai",
            "GATEWAY_PROVIDERS__BENCH__BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "GATEWAY_PROVIDERS__BENCH__CONNECTIONS": "1000",
            "GATEWAY_WORKER_CONCURRENCY": "1000",
        }
        body = json.dumps({"prompt": "a paper boat", "model": "bench/sora-2"})
        with ExitStack() as stack:
            stack.enter_context(
                self._child("upstream", f"{upstream}/polls", ["benchmarks.upstream", str(upstream), str(delay_s)])
            )
            api, port = stack.enter_context(self._gateway("--no-worker" if split else "--worker", **settings))
            gateways = [api]
            if split:
                apart = {"GATEWAY_DATA_DIR": folder, **settings}
                worker = self._child("worker", f"{upstream}/polls", ["app.cli.main", "worker"], **apart)
                gateways.append(stack.enter_context(worker))
                while not _accepted(upstream):  # it is ready once it has submitted
                    _ask_for(port, KEY, "ready")
                    time.sleep(0.2)
            flood = Load(port, ["/v1/videos"], body, KEY, connections=self._effort.connections, warmup_s=0)
            before, cpu_s = _accepted(upstream), sum(child.cpu_s() for child in gateways)
            result = load(replace(flood, duration_s=2 * self._effort.run_s))
            accepted = _accepted(upstream) - before
            cpu_s = sum(child.cpu_s() for child in gateways) - cpu_s
        seed.clear()
        cpu_ms = 1_000 * cpu_s / len(result.latencies_ms)
        return Flood(delay_s, 1 + split, result, accepted / result.seconds, cpu_ms)

    def _cores(self, child: Child, seconds: float) -> float:
        before, started = child.cpu_s(), time.perf_counter()
        time.sleep(seconds)
        return (child.cpu_s() - before) / (time.perf_counter() - started)


def _count(url: str) -> int:
    with urlopen(url, timeout=5) as answer:
        return int(json.load(answer)["polls"])


def _accepted(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/submits", timeout=5) as answer:
        return int(json.load(answer)["accepted"])


def _submits(port: int) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{port}/submits", timeout=5) as answer:
        return dict(json.load(answer)["submits"])


def _ask_for(port: int, key: str, prompt: str) -> None:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    body = json.dumps({"prompt": prompt, "model": "bench/sora-2"}).encode()
    urlopen(Request(f"http://127.0.0.1:{port}/v1/videos", body, headers), timeout=30).close()


def _create(port: int) -> Load:
    return Load(port, ["/v1/videos"], json.dumps(REQUEST), KEY)
