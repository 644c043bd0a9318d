"""The gateway as its processes: first start, restart, Ctrl-C, kill -9 at every bad moment, and a database that goes."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.otlp import Collector
from fakes.server import Hang, closed_port, serve
from harness import ALICE, Running, StartGateway, scratch_database, sqlalchemy_url
from processes import PATIENCE_S, Child, Served, postgres_of, provider, ran, running, served, until
from programs import need
from starlette.types import Receive, Scope, Send

from app.db import embedded
from app.video import AttemptState as S

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CARD = {"model": "sandbox/testcard", "seconds": "1", "size": "128x128"}
QUICK = {"worker_tick_s": 0.05, "poll_interval_s": 0.1, "lease_s": 5, "log_format": "json"}


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with `data` in it that the embedded PostgreSQL can get at when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="video-gateway-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()


@pytest.fixture
def shared(database_url: str, tmp_path: Path) -> dict[str, Any]:
    """Settings of processes that work together on one database of ours, quickly."""
    return {
        **QUICK,
        "database_url": database_url,
        "data_dir": tmp_path / "data",
        "api_keys": ALICE,
        "pepper": "a pepper of the tests",
    }


# serve, with its own database


async def test_the_first_hour_with_the_embedded_database(home: Path) -> None:
    """Start, paste the curl line, Ctrl-C, start again, kill -9, start again, stop."""
    data_dir = home / "data"
    async with served(cwd=home, log_format="console") as gateway:
        key_file = data_dir / "secrets" / "api-key"
        assert gateway.key == key_file.read_text()
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "media").stat().st_mode) == 0o700
        own = 0o711 if os.geteuid() == 0 else 0o700  # root's PostgreSQL runs as another user in it
        assert stat.S_IMODE(data_dir.stat().st_mode) == own
        video_id = await pasted(gateway.child)
        assert f"--url {gateway.url}/v1" in gateway.child.printed
        assert (await gateway.finished(video_id))["status"] == "completed"
        assert (await gateway.content(video_id))[4:8] == b"ftyp"
        gateway.child.kill(signal.SIGINT, group=True)
        assert await gateway.child.end() == 130
        assert "Traceback" not in gateway.child.printed
        assert postgres_of(data_dir) == []
    first_key = gateway.key

    async with served(cwd=home) as gateway:
        assert gateway.key == first_key
        assert (await gateway.content(video_id))[4:8] == b"ftyp"
        gateway.child.kill()
        await gateway.child.end()
        assert postgres_of(data_dir), "the database survives, and waits for the next start"

    async with served(cwd=home) as gateway:
        assert (await gateway.content(video_id))[4:8] == b"ftyp"
        assert (await gateway.finished(await gateway.create(**CARD)))["status"] == "completed"
        assert await gateway.child.stop() == 0
        assert postgres_of(data_dir) == []


async def pasted(child: Child) -> str:
    """Create a video with the curl line that the server printed."""
    await child.line("Ctrl-C")
    printed = "\n".join(child.out)
    line = printed[printed.index("curl ") : printed.index("\nor create a video")]
    need("curl")
    shell = await asyncio.create_subprocess_shell(f"{line} --silent --fail-with-body", stdout=asyncio.subprocess.PIPE)
    answer = (await shell.communicate())[0].decode()
    assert shell.returncode == 0, answer
    return str(json.loads(answer)["id"])


async def test_a_killed_database_recovers_although_its_number_belongs_to_another_process(home: Path) -> None:
    data_dir = home / "data"
    server = await asyncio.to_thread(embedded.start, data_dir)
    (pid,) = postgres_of(data_dir)
    postmaster = psutil.Process(pid)
    postmaster.kill()
    await asyncio.to_thread(psutil.wait_procs, [postmaster], PATIENCE_S)
    left = data_dir / "postgres" / "postmaster.pid"
    left.write_text("\n".join([str(os.getpid()), *left.read_text().split("\n")[1:]]))
    again = await asyncio.to_thread(embedded.start, data_dir)
    try:
        psycopg.connect(again.get_uri()).close()
    finally:
        server.cleanup()
        assert postgres_of(data_dir) != []
        again.cleanup()
    assert postgres_of(data_dir) == []


async def test_two_servers_share_an_embedded_database_and_the_last_one_stops_it(home: Path) -> None:
    async with served(cwd=home) as first, served(cwd=home) as second:
        video_id = await first.create(**CARD)
        assert await first.child.stop() == 0
        assert (await second.finished(video_id))["status"] == "completed"
        assert await second.child.stop() == 0
        assert postgres_of(home / "data") == []


def metrics_folder(children: list[psutil.Process]) -> Path:
    """The folder in which server processes keep their metrics."""
    (folder,) = {path for child in children if (path := child.environ().get("PROMETHEUS_MULTIPROC_DIR"))}
    return Path(folder)


async def requests_counted(gateway: Served) -> str:
    """The counted requests to /healthz, as the process shows them that gets a new connection."""
    async with gateway.client() as client:
        page = (await client.get("/metrics")).text
    (count,) = re.findall(r'^gateway_http_request_duration_seconds_count{.*route="/healthz".*} (.+)$', page, re.M)
    return str(count)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_several_server_processes_start_and_end_together(how: signal.Signals, home: Path) -> None:
    data_dir = home / "data"
    async with served("--workers", "2", cwd=home) as gateway:
        assert await statuses(gateway) == (200, 200)
        async with gateway.client() as client:  # the limits of app/http/server.py have reached the children
            assert (await client.get("/healthz", headers={"x-large": "a" * 70_000})).status_code == 431
        children = psutil.Process(gateway.child.process.pid).children(recursive=True)
        assert len(children) >= 2
        metrics = metrics_folder(children)
        assert metrics.is_dir()
        assert len({await requests_counted(gateway) for _ in range(8)}) == 1, "whichever process is asked"
        code = await gateway.child.stop(how)
        assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL), gateway.child.printed
        _, left = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
        assert left == []
        assert metrics.exists() is (how is signal.SIGKILL)
        assert "Traceback" not in gateway.child.printed
    if how is signal.SIGKILL:
        rmtree(metrics)
        (await asyncio.to_thread(embedded.start, data_dir)).cleanup()
    assert postgres_of(data_dir) == []


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_waiting_requests_and_streams_end_when_a_server_drains(
    workers: str, home: Path, collector: Collector
) -> None:
    """Long before the grace period ends, which would cut them off. Each process sends its spans before it ends."""
    async with (
        served("--workers", workers, cwd=home, shutdown_grace_s=PATIENCE_S) as gateway,
        gateway.client() as client,
    ):
        video_id = await gateway.create(**{**CARD, "model": "sandbox/slow"})
        async with client.stream("GET", f"/v1/videos/{video_id}/events") as events:
            lines = events.aiter_lines()
            assert (await anext(lines)).startswith("id: ")
            waiting = asyncio.create_task(client.get(f"/v1/videos/{video_id}?wait=25"))
            await asyncio.wait({waiting}, timeout=0.5)  # until it waits
            gateway.child.kill(signal.SIGTERM)
            assert (await waiting).json()["status"] in ("queued", "in_progress")
            assert not [line async for line in lines if line == "event: end"]
        assert await gateway.child.end() == 0
    names = ["GET /v1/videos/{video_id}", "GET /v1/videos/{video_id}/events", "video.create"]
    assert sorted(span.name for span in collector.spans if span.kind == "server") == names


# serve, with a database of ours


async def test_database_behind_the_schema_is_refused_until_migrated(
    postgres: str, shared: dict[str, Any], tmp_path: Path
) -> None:
    async with scratch_database(postgres) as url:
        settings = {**shared, "database_url": url}
        commands = (("serve", "--port", "0"), ("serve", "--port", "0", "--workers", "2"), ("worker",))
        for child in await asyncio.gather(*(ran(*c, cwd=tmp_path, code=1, **settings) for c in commands)):
            assert child.err[-1] == "  video-gateway migrate"
            assert "Traceback" not in child.printed
        assert "is now at" in (await ran("migrate", cwd=tmp_path, **settings)).printed
        async with served(cwd=tmp_path, **settings) as gateway:
            assert (await gateway.finished(await gateway.create(**CARD)))["status"] == "completed"
            assert ALICE not in gateway.child.printed


async def test_a_separate_worker_process_does_the_work(shared: dict[str, Any], tmp_path: Path) -> None:
    async with served("--no-worker", cwd=tmp_path, **shared) as gateway, running("worker", cwd=tmp_path, **shared) as w:
        await w.line("worker started")
        video = await gateway.finished(await gateway.create(**CARD))
        assert video["status"] == "completed"
        await w.line(f'"video": "{video["id"]}".*video ended|video ended.*"{video["id"]}"')
        assert await w.stop() == 0, w.printed
        assert video["id"] not in "\n".join(line for line in gateway.child.err if "video ended" in line)


async def test_metrics_of_a_worker_need_the_key(shared: dict[str, Any], tmp_path: Path) -> None:
    url = httpx.URL(closed_port()).copy_with(path="/metrics")
    metrics: dict[str, Any] = {"worker_metrics_port": url.port, "metrics_key": "sk-metrics"}
    async with running("worker", cwd=tmp_path, **shared, **metrics) as worker, httpx.AsyncClient() as http:
        await worker.line("worker started")
        for key, status in (("", 401), ("Bearer sk-wrong", 401), ("Basic sk-metrics", 401), ("Bearer sk-metrics", 200)):
            answer = await http.get(url, headers={"authorization": key})
            assert (answer.status_code, "gateway_" in answer.text) == (status, status == 200)
        guesses = [await http.get(url, headers={"authorization": "Bearer sk-wrong"}) for _ in range(12)]
        assert {guess.status_code for guess in guesses} == {401, 429}
        assert int(guesses[-1].headers["retry-after"]) <= 60
        await worker.line("wrong operator keys")
        page = await http.get(url, headers={"authorization": "Bearer sk-metrics"})
        assert "gateway_workers 1.0" in page.text, "read from the database in the worker's loop"
        assert (await http.get(url.copy_with(path="/healthz"))).json()["status"] == "ok", "for it no key is needed"
        assert await worker.stop() == 0, worker.printed


async def test_first_key_is_not_in_the_log_of_a_server_with_a_database_of_ours(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    """Of a release that made one there; it stays valid."""
    (tmp_path / "data" / "secrets").mkdir(parents=True)
    (tmp_path / "data" / "secrets" / "api-key").write_text("sk-first-key-of-old")
    settings = {name: value for name, value in shared.items() if name != "api_keys"} | {"log_format": "console"}
    async with running("serve", "--port", "0", cwd=tmp_path, **settings) as child:
        assert (await pasted(child)).startswith("video_")
        assert (tmp_path / "data" / "secrets" / "api-key").read_text() not in child.printed


async def test_what_is_wrong_is_said_in_one_message(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            closed = probe.getsockname()[1]
        provider = {"providers__up__kind": "openai", "providers__up__api_key": "sekret-key"}
        wrong: list[tuple[str, dict[str, Any], str]] = [
            (str(port), {}, f"video-gateway: cannot listen on port {port} of 127.0.0.1: address already in use."),
            (
                "0",
                {"database_url": f"postgres://u:sekret@127.0.0.1:{closed}/db?sslmode=disable&password=sekret"},
                f"video-gateway: the database postgresql://u:***@127.0.0.1:{closed}/db cannot be reached: ",
            ),
            ("0", {"database_url": "postgres://u:sekret@h:port/db"}, "video-gateway: GATEWAY_DATABASE_URL cannot be "),
            (
                "0",
                {**provider, "providers__up__base_url": "sekret.example"},
                "video-gateway: GATEWAY_PROVIDERS__UP__BASE_URL: expected an address such as",
            ),
            ("0", {"data_dir": "/proc/none"}, "video-gateway: the embedded PostgreSQL under /proc/none/postgres does "),
        ]
        children = await asyncio.gather(
            *(ran("serve", "--port", port, cwd=home, code=1, **settings) for port, settings, _ in wrong)
        )
    for child, (_, _, message) in zip(children, wrong, strict=True):
        said = [line for line in child.err if line.startswith(message)]
        assert len(said) == 1, child.printed
        assert "sekret" not in child.printed
        assert "Traceback" not in child.printed
        assert child.out == []


# kill -9 of a worker


class Turnstile:
    """Stands before a fake and holds the calls of some verbs until the test lets them through."""

    def __init__(self, fake: FakeOpenAI) -> None:
        self.fake = fake
        self.held: dict[str, asyncio.Event] = {}
        self.reached: dict[str, asyncio.Event] = {}

    def hold(self, verb: str) -> None:
        self.held[verb], self.reached[verb] = asyncio.Event(), asyncio.Event()

    def release(self, verb: str) -> None:
        self.held.pop(verb).set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        verb, _ = self.fake.route(scope["method"], scope["path"])
        if verb in self.held:
            self.reached[verb].set()
            await self.held[verb].wait()
        await self.fake(scope, receive, send)


async def states(gateway: Running, *video_ids: str) -> list[S]:
    return [(await gateway.attempts(video_id))[-1].state for video_id in video_ids]


async def ended(gateway: Running, *video_ids: str) -> list[dict[str, Any]]:
    async def look() -> list[dict[str, Any]] | None:
        videos = [await gateway.get(video_id) for video_id in video_ids]
        return videos if all(video["status"] in ("completed", "failed") for video in videos) else None

    return await until(look)


def prompts(fake: FakeOpenAI) -> Counter[str]:
    return Counter(call.fields["prompt"] for call in fake.submits)


@pytest.mark.parametrize("idempotency", ["none", "header"])
async def test_worker_killed_in_every_state_and_nothing_is_paid_twice(
    idempotency: str, start_gateway: StartGateway, shared: dict[str, Any], tmp_path: Path
) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with (
        serve(fake) as url,
        start_gateway(providers={"up": {"kind": "openai", "base_url": f"{url}/v1"}}) as gateway,
    ):
        settings = {**shared, **provider(url, idempotency=idempotency)}
        hangs = {verb: Hang() for verb in ("content", "poll", "submit")}
        videos = {}
        async with running("worker", cwd=tmp_path, **settings, worker_concurrency=1) as worker:
            for verb, state in (("content", S.storing), ("poll", S.running), ("submit", S.submitting)):
                fake.script(verb, hangs[verb])
                videos[state] = (await gateway.create(prompt=state, model="up/sora-2"))["id"]
                async with asyncio.timeout(PATIENCE_S):
                    await hangs[verb].reached.wait()
            videos[S.pending] = (await gateway.create(prompt=S.pending, model="up/sora-2"))["id"]
            worker.kill()
            await worker.end()
        assert await states(gateway, *videos.values()) == list(videos)
        assert prompts(fake) == {S.storing: 1, S.running: 1, S.submitting: 1}

        async with AsyncExitStack() as stack:
            for _ in range(2 if idempotency == "none" else 1):
                await stack.enter_async_context(running("worker", cwd=tmp_path, **settings))
            done = dict(zip(videos, await ended(gateway, *videos.values()), strict=True))
        again = 1 if idempotency == "none" else 2
        assert prompts(fake) == {S.storing: 1, S.running: 1, S.submitting: again, S.pending: 1}
        assert Counter(job.asked["prompt"] for job in fake.jobs.values()) == dict.fromkeys(videos, 1)
        assert {len(await gateway.attempts(video_id)) for video_id in videos.values()} == {1}
        lost = done.pop(S.submitting)
        assert {video["status"] for video in done.values()} == {"completed"}
        if idempotency == "none":
            assert (lost["status"], lost["error"]["code"]) == ("failed", "upstream_outcome_unknown")
        else:
            assert lost["status"] == "completed"


@asynccontextmanager
async def held(start_gateway: StartGateway) -> AsyncIterator[tuple[Running, Turnstile, dict[str, Any]]]:
    """A gateway without a worker, an upstream behind a turnstile, and the settings that lead there."""
    turnstile = Turnstile(FakeOpenAI(polls_until_working=0, polls_until_done=0))
    async with (
        serve(turnstile) as url,
        start_gateway(providers={"up": {"kind": "openai", "base_url": f"{url}/v1"}}) as gateway,
    ):
        yield gateway, turnstile, provider(url)


async def held_jobs(gateway: Running, turnstile: Turnstile, *verbs: str) -> dict[str, str]:
    """For each verb a job whose next call of it waits at the turnstile."""
    videos = {}
    for verb in verbs:  # the last verb of a job's life first: none passes a closed turnstile
        turnstile.hold(verb)
        videos[verb] = (await gateway.create(prompt=verb, model="up/sora-2"))["id"]
        async with asyncio.timeout(PATIENCE_S):
            await turnstile.reached[verb].wait()
    return videos


async def test_stopping_worker_lets_running_calls_finish(
    start_gateway: StartGateway, shared: dict[str, Any], tmp_path: Path
) -> None:
    async with held(start_gateway) as (gateway, turnstile, upstream):
        settings = {**shared, **upstream, "lease_s": 600}
        async with running("worker", cwd=tmp_path, **settings) as worker:
            videos = await held_jobs(gateway, turnstile, "content", "poll", "submit")
            worker.kill(signal.SIGTERM)
            await worker.line("stopping: waiting for running calls")
            for verb in videos:
                turnstile.release(verb)
            assert await worker.end() == 0, worker.printed
        attempts = [(await gateway.attempts(video_id))[0] for video_id in videos.values()]
        assert [a.state for a in attempts] == [S.succeeded, S.storing, S.running]
        assert [a.lease for a in attempts] == [None, None, None]
        async with running("worker", cwd=tmp_path, **settings):
            assert {video["status"] for video in await ended(gateway, *videos.values())} == {"completed"}
        assert prompts(turnstile.fake) == dict.fromkeys(videos, 1)


async def test_stopping_worker_hands_back_what_takes_too_long(
    start_gateway: StartGateway, shared: dict[str, Any], tmp_path: Path
) -> None:
    async with held(start_gateway) as (gateway, turnstile, upstream):
        settings = {**shared, **upstream, "lease_s": 600, "shutdown_grace_s": 0.1}
        async with running("worker", cwd=tmp_path, **settings) as worker:
            videos = await held_jobs(gateway, turnstile, "content", "poll")
            assert await worker.stop() == 0, worker.printed
        attempts = [(await gateway.attempts(video_id))[0] for video_id in videos.values()]
        assert [(a.state, a.lease) for a in attempts] == [(S.storing, None), (S.running, None)]
        for verb in videos:
            turnstile.release(verb)
        async with running("worker", cwd=tmp_path, **settings):  # not after the lease: that is ten minutes away
            assert {video["status"] for video in await ended(gateway, *videos.values())} == {"completed"}
        assert prompts(turnstile.fake) == dict.fromkeys(videos, 1)


# Postgres goes and comes back


class Cable:
    """A TCP way to the database that a test can cut and mend."""

    def __init__(self, url: str) -> None:
        self._to = sa.make_url(sqlalchemy_url(url))
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        local = self._to.set(drivername="postgresql", host="127.0.0.1", port=self.port, query={})
        return local.render_as_string(hide_password=False)

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        directory = self._to.query.get("host")
        if directory:
            there = await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.5432")
        else:
            there = await asyncio.open_connection(self._to.host, self._to.port or 5432)
        self._ends |= {writer, there[1]}
        for source, target in ((reader, there[1]), (there[0], writer)):
            talk = asyncio.create_task(self._copy(source, target))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(2**16):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self._ends.discard(writer)
            writer.close()


@pytest.fixture
async def cable(database_url: str) -> AsyncIterator[Cable]:
    cable = Cable(database_url)
    await cable.mend()
    yield cable
    await cable.cut()


async def refused(gateway: Served, method: str, path: str, **options: Any) -> None:
    async with gateway.client() as client:
        response = await client.request(method, path, **options)
    assert (response.status_code, response.headers["retry-after"]) == (503, "2"), response.text
    assert response.json() == {
        "error": {
            "message": "the gateway cannot take requests just now; try again",
            "type": "server_error",
            "param": None,
            "code": "service_unavailable",
        }
    }
    assert response.headers["x-request-id"].startswith("req_")


async def statuses(gateway: Served) -> tuple[int, int]:
    async with gateway.client() as client:
        return (await client.get("/healthz")).status_code, (await client.get("/readyz")).status_code


async def test_database_away_for_a_while_loses_nothing(cable: Cable, shared: dict[str, Any], tmp_path: Path) -> None:
    turnstile = Turnstile(FakeOpenAI(polls_until_working=0, polls_until_done=0))
    turnstile.hold("submit")
    async with serve(turnstile) as url:
        settings = {**shared, **provider(url), "database_url": cable.url}
        async with served(cwd=tmp_path, **settings) as gateway, gateway.client() as client:
            assert await statuses(gateway) == (200, 200)
            video_id = await gateway.create(model="up/sora-2")
            async with asyncio.timeout(PATIENCE_S):
                await turnstile.reached["submit"].wait()

            async with client.stream("GET", f"/v1/videos/{video_id}/events") as stream:
                lines = stream.aiter_lines()
                assert await anext(lines)
                await cable.cut()
                assert "event: end" not in [line async for line in lines], "the stream ends, without an error"
            await refused(gateway, "GET", f"/v1/videos/{video_id}")
            await refused(gateway, "POST", "/v1/videos", json={"prompt": "a kite", "model": "up/sora-2"})
            await refused(gateway, "GET", "/v1/videos")
            await refused(gateway, "DELETE", f"/v1/videos/{video_id}")
            assert await statuses(gateway) == (200, 503)
            turnstile.release("submit")
            await gateway.child.line("database unavailable, result kept")
            assert await statuses(gateway) == (200, 503)

            await cable.mend()
            assert (await gateway.finished(video_id))["status"] == "completed"
            assert await gateway.content(video_id) == turnstile.fake.file
            assert await statuses(gateway) == (200, 200)
            assert (await gateway.finished(await gateway.create(model="up/sora-2")))["status"] == "completed"
            assert len(turnstile.fake.submits) == 2
            assert "Traceback" not in gateway.child.printed
            assert "exception" not in gateway.child.printed
