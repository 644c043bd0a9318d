"""The gateway as its processes: first start, restart, Ctrl-C, kill -9 at every bad moment, and a database that goes."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from conftest import ALICE, Running, StartGateway, scratch_database, sqlalchemy_url
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Hang, serve
from processes import PATIENCE_S, Served, postgres_of, ran, running, served, until
from starlette.types import Receive, Scope, Send

from app import db
from app.video import AttemptState as S

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FILM = {"model": "sandbox/testcard", "seconds": "1", "size": "128x128"}
QUICK = {"worker_tick_s": 0.05, "poll_interval_s": 0.1, "lease_s": 5, "log_format": "json"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory that the embedded PostgreSQL can get at when the tests run as root."""
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    return tmp_path / "data"


@pytest.fixture
def shared(database_url: str, tmp_path: Path) -> dict[str, Any]:
    """Settings of processes that work together on one database of ours, quickly."""
    return {
        **QUICK,
        "database_url": database_url,
        "data_dir": tmp_path / "data",
        "api_keys": ALICE,
        "pepper": "test pepper",
    }


# serve, with its own database


async def test_first_start_and_the_printed_curl_line_makes_a_film(data_dir: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    async with served(cwd=tmp_path) as gateway:
        assert time.monotonic() - started < 10
        key_file = data_dir / "secrets" / "api-key"
        assert gateway.key == key_file.read_text()
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
        printed = "\n".join(gateway.child.out)
        line = printed[printed.index("curl ") : printed.index("\nor make one")]
        if shutil.which("curl"):
            shell = await asyncio.create_subprocess_shell(
                f"{line} --silent --fail-with-body", stdout=asyncio.subprocess.PIPE
            )
            answer = (await shell.communicate())[0].decode()
            assert shell.returncode == 0, answer
            video_id = json.loads(answer)["id"]
        else:
            video_id = await gateway.create(prompt="a paper boat on a pond", model="sandbox/testcard", seconds="4")
        assert (await gateway.finished(video_id))["status"] == "completed"
        assert (await gateway.content(video_id))[4:8] == b"ftyp"
        assert f"--url {gateway.url}/v1" in printed


async def test_ctrl_c_stops_the_server_and_its_database_and_all_is_there_again(data_dir: Path, tmp_path: Path) -> None:
    async with served(cwd=tmp_path) as gateway:
        video_id = await gateway.create(**FILM)
        await gateway.finished(video_id)
        assert postgres_of(data_dir)
        gateway.child.kill(signal.SIGINT, group=True)
        assert await gateway.child.end() in (130, -signal.SIGINT)
        assert "Traceback" not in gateway.child.printed
        assert postgres_of(data_dir) == []
    first_key = gateway.key
    async with served(cwd=tmp_path) as gateway:
        assert gateway.key == first_key
        assert (await gateway.content(video_id))[4:8] == b"ftyp"


async def test_killed_server_starts_again_and_then_stops_its_database(data_dir: Path, tmp_path: Path) -> None:
    async with served(cwd=tmp_path) as gateway:
        video_id = await gateway.create(**FILM)
        await gateway.finished(video_id)
        gateway.child.kill()
        await gateway.child.end()
        assert postgres_of(data_dir), "the database survives, and waits for the next start"
    async with served(cwd=tmp_path) as gateway:
        assert (await gateway.content(video_id))[4:8] == b"ftyp"
        assert (await gateway.finished(await gateway.create(**FILM)))["status"] == "completed"
        await gateway.child.stop(signal.SIGTERM)
        assert postgres_of(data_dir) == []


async def test_killed_database_recovers_although_its_number_belongs_to_another_process(
    data_dir: Path, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(db.start_embedded, data_dir)
    (pid,) = postgres_of(data_dir)
    postmaster = psutil.Process(pid)
    postmaster.kill()
    await asyncio.to_thread(psutil.wait_procs, [postmaster], PATIENCE_S)
    left = data_dir / "postgres" / "postmaster.pid"
    left.write_text("\n".join([str(os.getpid()), *left.read_text().split("\n")[1:]]))
    again = await asyncio.to_thread(db.start_embedded, data_dir)
    try:
        psycopg.connect(again.get_uri()).close()
    finally:
        server.cleanup()
        assert postgres_of(data_dir) != []
        again.cleanup()
    assert postgres_of(data_dir) == []


async def test_two_servers_share_an_embedded_database_and_the_last_one_stops_it(data_dir: Path, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        starting = [stack.enter_async_context(served(cwd=tmp_path)) for _ in range(2)]
        first, second = [await start for start in starting]
        video_id = await first.create(**FILM)
        assert await first.child.stop() in (143, -signal.SIGTERM)
        assert (await second.finished(video_id))["status"] == "completed"
        assert (await second.finished(await second.create(**FILM)))["status"] == "completed"
        await second.child.stop()
        assert postgres_of(data_dir) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_several_server_processes_end_together(how: signal.Signals, data_dir: Path, tmp_path: Path) -> None:
    async with served("--workers", "2", cwd=tmp_path) as gateway:
        videos = [await gateway.create(**FILM) for _ in range(3)]
        assert {(await gateway.finished(video))["status"] for video in videos} == {"completed"}
        children = psutil.Process(gateway.child.process.pid).children(recursive=True)
        assert len(children) >= 2
        code = await gateway.child.stop(how)
        assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL), gateway.child.printed
        _, left = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
        assert left == []
        assert "Traceback" not in gateway.child.printed
    if how is signal.SIGTERM:
        assert postgres_of(data_dir) == []
    else:
        (await asyncio.to_thread(db.start_embedded, data_dir)).cleanup()


# serve, with a database of ours


async def test_database_behind_the_schema_is_refused_until_migrated(
    postgres: str, shared: dict[str, Any], tmp_path: Path
) -> None:
    async with scratch_database(postgres) as url:
        settings = {**shared, "database_url": url}
        for command in (("serve", "--port", "0"), ("serve", "--port", "0", "--workers", "2"), ("worker",)):
            refused = await ran(*command, cwd=tmp_path, code=1, **settings)
            assert refused.err[-1] == "  video-gateway migrate"
            assert "Traceback" not in refused.printed
        assert "is now at" in (await ran("migrate", cwd=tmp_path, **settings)).printed
        assert "up to date already" in (await ran("migrate", cwd=tmp_path, **settings)).printed
        async with served(cwd=tmp_path, **settings) as gateway:
            assert (await gateway.finished(await gateway.create(**FILM)))["status"] == "completed"
            assert ALICE not in gateway.child.printed


async def test_worker_of_its_own_does_the_work(shared: dict[str, Any], tmp_path: Path) -> None:
    async with served("--no-worker", cwd=tmp_path, **shared) as gateway, running("worker", cwd=tmp_path, **shared) as w:
        await w.line("worker started")
        video = await gateway.finished(await gateway.create(**FILM))
        assert video["status"] == "completed"
        await w.line(f'"video": "{video["id"]}".*video ended|video ended.*"{video["id"]}"')
        assert await w.stop() == 0, w.printed
        assert video["id"] not in "\n".join(line for line in gateway.child.err if "video ended" in line)


async def test_first_key_is_not_in_the_log_of_a_server_with_a_database_of_ours(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    settings = {name: value for name, value in shared.items() if name != "api_keys"}
    async with running("serve", "--port", "0", cwd=tmp_path, **settings) as child:
        url = (await child.line(r"ready at (http://\S+)/v1 ")).group(1)
        await child.line("Ctrl-C")
        key = (tmp_path / "data" / "secrets" / "api-key").read_text()
        assert key not in child.printed
        printed = "\n".join(child.out)
        line = printed[printed.index("curl ") : printed.index("\nor make one")]
        if shutil.which("curl"):
            shell = await asyncio.create_subprocess_shell(f"{line} -s -f", stdout=asyncio.subprocess.PIPE)
            answer = (await shell.communicate())[0].decode()
            assert shell.returncode == 0, answer
        assert url in line


async def test_what_is_wrong_is_said_in_one_message(tmp_path: Path) -> None:
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
                f"video-gateway: the database postgresql://u@127.0.0.1:{closed}/db cannot be reached: ",
            ),
            ("0", {"database_url": "postgres://u:sekret@h:port/db"}, "video-gateway: GATEWAY_DATABASE_URL cannot be "),
            ("0", {"database_url": "mysql://u:sekret@h/db"}, "video-gateway: GATEWAY_DATABASE_URL: expected postgres"),
            (
                "0",
                {**provider, "providers__up__base_url": "sekret.example"},
                "video-gateway: GATEWAY_PROVIDERS__UP__BASE_URL: expected an address such as",
            ),
            (
                "0",
                {**provider, "providers__up__base_url": "http://h/v1", "providers__up__api_keyy": "sekret"},
                "video-gateway: GATEWAY_PROVIDERS__UP__API_KEYY: ",
            ),
            ("0", {"data_dir": "/proc/none"}, "video-gateway: the embedded PostgreSQL under /proc/none/postgres does "),
        ]
        children = await asyncio.gather(
            *(ran("serve", "--port", port, cwd=tmp_path, code=1, **settings) for port, settings, _ in wrong)
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


def provider(url: str, **more: str) -> dict[str, Any]:
    """The fake as a child process is told of it."""
    values = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, **more}
    return {f"providers__up__{name}": value for name, value in values.items()}


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
    async with serve(fake) as url, start_gateway(providers={"up": {"kind": "openai", "base_url": f"{url}/v1"}}) as door:
        settings = {**shared, **provider(url, idempotency=idempotency)}
        hangs = {verb: Hang() for verb in ("content", "poll", "submit")}
        videos = {}
        async with running("worker", cwd=tmp_path, **settings, worker_concurrency=1) as worker:
            for verb, state in (("content", S.storing), ("poll", S.running), ("submit", S.submitting)):
                fake.script(verb, hangs[verb])
                videos[state] = (await door.create(prompt=state, model="up/sora-2"))["id"]
                async with asyncio.timeout(PATIENCE_S):
                    await hangs[verb].reached.wait()
            videos[S.pending] = (await door.create(prompt=S.pending, model="up/sora-2"))["id"]
            worker.kill()
            await worker.end()
        assert await states(door, *videos.values()) == list(videos)
        assert prompts(fake) == {S.storing: 1, S.running: 1, S.submitting: 1}

        async with running("worker", cwd=tmp_path, **settings), running("worker", cwd=tmp_path, **settings):
            done = dict(zip(videos, await ended(door, *videos.values()), strict=True))
        again = 1 if idempotency == "none" else 2
        assert prompts(fake) == {S.storing: 1, S.running: 1, S.submitting: again, S.pending: 1}
        assert Counter(job.asked["prompt"] for job in fake.jobs.values()) == dict.fromkeys(videos, 1)
        assert {len(await door.attempts(video_id)) for video_id in videos.values()} == {1}
        lost = done.pop(S.submitting)
        assert {video["status"] for video in done.values()} == {"completed"}
        if idempotency == "none":
            assert (lost["status"], lost["error"]["code"]) == ("failed", "upstream_outcome_unknown")
        else:
            assert lost["status"] == "completed"


@asynccontextmanager
async def held(
    verb: str, start_gateway: StartGateway, polls: int = 0
) -> AsyncIterator[tuple[Running, Turnstile, str, str]]:
    """A job whose next call of `verb` waits at the turnstile."""
    turnstile = Turnstile(FakeOpenAI(polls_until_working=0, polls_until_done=polls))
    turnstile.hold(verb)
    async with (
        serve(turnstile) as url,
        start_gateway(providers={"up": {"kind": "openai", "base_url": f"{url}/v1"}}) as door,
    ):
        yield door, turnstile, (await door.create(model="up/sora-2"))["id"], url


@pytest.mark.parametrize("verb", ["submit", "poll", "content"])
async def test_stopping_worker_lets_a_running_call_finish(
    verb: str, start_gateway: StartGateway, shared: dict[str, Any], tmp_path: Path
) -> None:
    async with held(verb, start_gateway) as (door, turnstile, video_id, url):
        settings = {**shared, **provider(url), "lease_s": 600}
        async with running("worker", cwd=tmp_path, **settings) as worker:
            async with asyncio.timeout(PATIENCE_S):
                await turnstile.reached[verb].wait()
            worker.kill(signal.SIGTERM)
            await worker.line("stopping: waiting for running calls")
            turnstile.release(verb)
            assert await worker.end() == 0, worker.printed
        (attempt,) = await door.attempts(video_id)
        assert attempt.state is {"submit": S.running, "poll": S.storing, "content": S.succeeded}[verb]
        assert attempt.lease is None
        async with running("worker", cwd=tmp_path, **settings):
            assert (await ended(door, video_id))[0]["status"] == "completed"
        assert len(turnstile.fake.submits) == 1


@pytest.mark.parametrize("verb", ["poll", "content"])
async def test_stopping_worker_hands_back_what_takes_too_long(
    verb: str, start_gateway: StartGateway, shared: dict[str, Any], tmp_path: Path
) -> None:
    async with held(verb, start_gateway) as (door, turnstile, video_id, url):
        settings = {**shared, **provider(url), "lease_s": 600, "shutdown_grace_s": 0.1}
        async with running("worker", cwd=tmp_path, **settings) as worker:
            async with asyncio.timeout(PATIENCE_S):
                await turnstile.reached[verb].wait()
            assert await worker.stop() == 0, worker.printed
        (attempt,) = await door.attempts(video_id)
        assert (attempt.state, attempt.lease) == ({"poll": S.running, "content": S.storing}[verb], None)
        turnstile.release(verb)
        async with running("worker", cwd=tmp_path, **settings):  # not after the lease: that is ten minutes away
            assert (await ended(door, video_id))[0]["status"] == "completed"
        assert len(turnstile.fake.submits) == 1


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
            "message": "the gateway's database cannot be reached just now; try again",
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
        async with served(cwd=tmp_path, **settings) as gateway:
            assert await statuses(gateway) == (200, 200)
            video_id = await gateway.create(model="up/sora-2")
            async with asyncio.timeout(PATIENCE_S):
                await turnstile.reached["submit"].wait()

            await cable.cut()
            await refused(gateway, "GET", f"/v1/videos/{video_id}")
            await refused(gateway, "POST", "/v1/videos", json={"prompt": "a kite", "model": "up/sora-2"})
            await refused(gateway, "GET", "/v1/videos")
            await refused(gateway, "DELETE", f"/v1/videos/{video_id}")
            assert await statuses(gateway) == (200, 503)
            turnstile.release("submit")
            await gateway.child.line("the database is away; the result is kept", after=2)
            assert await statuses(gateway) == (200, 503)

            await cable.mend()
            assert (await gateway.finished(video_id))["status"] == "completed"
            assert await gateway.content(video_id) == turnstile.fake.file
            assert await statuses(gateway) == (200, 200)
            assert (await gateway.finished(await gateway.create(model="up/sora-2")))["status"] == "completed"
            assert len(turnstile.fake.submits) == 2
            assert "Traceback" not in gateway.child.printed
            assert "exception" not in gateway.child.printed
