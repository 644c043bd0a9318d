"""A fleet under fire: two servers and three workers on one database and one bucket, while they are killed at the worst
moments. No job is lost, none is paid for twice, every receiver gets its events, and no file is left over."""

import asyncio
import hashlib
import itertools
import logging
import os
import random
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from fakes.bucket import Bucket, open_bucket
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import Hang, serve
from harness import ALICE, Clock, scratch_database
from openai import OpenAI
from processes import Child, provider, ran, running, served, until
from starlette.types import Receive, Scope, Send

from app.main import open_parts
from app.settings import load

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SEED = int(os.environ.get("FLEET_SEED") or random.randrange(10_000))
"""In the name of the test; give it to run the same kills again, as far as the machine's timing allows."""
JOBS = 300
WORKERS = 3
UNDER_FIRE = JOBS * 2 // 3
"""So many ended jobs, then the fleet is left in peace."""
PATIENCE_S = 240
"""For all of this, on a machine that others use too."""
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)

SETTINGS: dict[str, Any] = {
    "api_keys": ALICE,
    "pepper": "a pepper of the tests",
    "allow_networks": "127.0.0.0/8",
    "lease_s": 5,
    "webhook_timeout_s": 3,
    "worker_tick_s": 0.2,
    "poll_interval_s": 0.2,
    "worker_concurrency": 12,
    "worker_stores": 4,
    "log_format": "json",
}
OPEN = 60
"""Jobs under way at once; the next one is asked for when one has ended."""
BURST = 16
"""Jobs that are asked for in one moment, the one in which a server is killed."""
CONCURRENCY = 12
"""Tasks at once at each upstream, so that there are submits as long as there are jobs."""

MOMENTS = ("submit", "poll", "content", "stored", "delivery")
"""Moments at which a worker is killed: in the middle of a call of its own, or between the storing of a video file and
the write to the database."""

log = logging.getLogger("fleet")


@dataclass
class Job:
    """The video that one client requests."""

    number: int
    video_id: str = ""

    @property
    def prompt(self) -> str:
        return f"paper boat {self.number}"

    @property
    def upstream(self) -> str:
        return ("plain", "keyed")[self.number % 2]

    @property
    def server(self) -> int:
        """The server that is asked first."""
        return self.number // 2 % 2

    @property
    def at_both_servers(self) -> bool:
        return self.number % 5 == 0

    @property
    def path(self) -> str | None:
        """Path of the receiver for the events of this job alone."""
        return f"/job/{self.number}" if self.number // 4 % 2 else None

    def request(self, receiver: str) -> dict[str, Any]:
        fields = {"prompt": self.prompt, "model": f"{self.upstream}/sora-2", "seconds": "4"}
        if self.path is not None:
            fields["webhook_url"] = receiver + self.path
        headers = {"idempotency-key": f"job {self.number}"}
        if self.number % 6:
            return {"json": fields, "headers": headers}
        return {"data": fields, "files": {"input_reference": ("boat.png", PICTURE, "image/png")}, "headers": headers}


@dataclass
class Ambush(Hang):
    """Holds one call, whose caller is known by its port."""

    port: int = 0

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.port = scope["client"][1]
        await super().play(scope, receive, send)

    def caller(self, children: dict[str, Child]) -> str | None:
        """None: a call that was still on its way when its caller was killed."""
        for name, child in children.items():
            connections = psutil.Process(child.process.pid).net_connections("tcp")
            if any(connection.laddr.port == self.port for connection in connections):
                return name
        return None


class History:
    """Every change of a row with the process that made it: written by triggers, so nothing is missed and the product is
    not involved. Every process names itself in the options of its connections."""

    SCHEMA = b"""
    create table history (
      n bigint generated always as identity primary key, who text, what text, id text,
      was text, became text, was_lease text, lease text
    );
    create function remember() returns trigger language plpgsql as $$ begin
      insert into history (who, what, id, was, became, was_lease, lease) values (
        current_setting('fleet.who', true), tg_table_name, new.id, to_jsonb(old) ->> tg_argv[0],
        to_jsonb(new) ->> tg_argv[0], to_jsonb(old) ->> 'lease', to_jsonb(new) ->> 'lease'
      );
      return null;
    end $$;
    create trigger remember after update on videos for each row
      when (old.status is distinct from new.status) execute function remember('status');
    create trigger remember after update on attempts for each row
      when ((old.state, old.lease) is distinct from (new.state, new.lease)) execute function remember('state');
    create trigger remember after update on deliveries for each row
      when ((old.state, old.lease) is distinct from (new.state, new.lease)) execute function remember('state');
    """

    def __init__(self, url: str, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._url = url
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str) -> AsyncIterator["History"]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(cls.SCHEMA)
            yield cls(url, connection)

    @staticmethod
    def name(who: str) -> dict[str, str]:
        """The environment of a process by this name."""
        return {"PGOPTIONS": f"-c fleet.who={who}"}

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        async with self._one_at_a_time:
            return await (await self._connection.execute(query.encode(), parameters)).fetchall()

    @asynccontextmanager
    async def no_news(self) -> AsyncIterator[None]:
        """Writers of a video have to wait until the block ends."""
        async with await psycopg.AsyncConnection.connect(self._url) as connection:
            await connection.execute("lock table videos in share row exclusive mode")
            yield

    async def holder(self, lease_end: str) -> str:
        """The process that took the lease that ends like this."""
        rows = await self.rows("select who from history where lease like %s limit 1", f"%{lease_end}")
        return str(rows[0][0])

    async def taken_over(self) -> list[tuple[str, str, str, str]]:
        """Rows claimed while another process still held them: previous process, table, id, and the state it was
        left in."""
        return await self.rows("""
            select (select who from history as before where before.lease = history.was_lease limit 1), what, id, was
            from history where lease is not null and was_lease is not null and lease <> was_lease order by n
        """)


class Fleet:
    """The processes: each has a post, where another one takes its place when it is gone."""

    def __init__(self, cwd: Path, settings: dict[str, Any], environment: dict[str, str]) -> None:
        self._cwd = cwd
        self._settings = settings
        self._environment = environment
        self._numbers = itertools.count(1)
        self._stopping = False
        self.workers: dict[str, Child] = {}
        """Those at work now, by name."""
        self.servers: list[tuple[Child, httpx.AsyncClient] | None] = [None, None]
        self.killed: set[str] = set()
        self.gone: list[Child] = []

    def _settings_of(self, name: str) -> dict[str, Any]:
        return {**self._settings, "environment": {**self._environment, **History.name(name)}}

    async def keep_worker(self) -> None:
        while not self._stopping:
            name = f"worker-{next(self._numbers)}"
            async with running("worker", cwd=self._cwd, **self._settings_of(name)) as child:
                await child.line("worker started")
                self.workers[name] = child
                await self._watch(child)
            self.workers.pop(name, None)

    async def keep_server(self, place: int) -> None:
        while not self._stopping:
            own = self._settings_of(f"server-{next(self._numbers)}")
            async with served("--no-worker", cwd=self._cwd, **own) as gateway, gateway.client() as client:
                self.servers[place] = (gateway.child, client)
                await self._watch(gateway.child)
            self.servers[place] = None

    async def _watch(self, child: Child) -> None:
        """Until it is killed, or stopped at the end: it never goes by itself."""
        code = await child.process.wait()
        assert code == (0 if self._stopping else -signal.SIGKILL), child.printed
        self.gone.append(child)

    async def ready(self, workers: int = WORKERS) -> None:
        """Until so many workers are at work, and both servers."""

        async def look() -> bool | None:
            return True if len(self.workers) >= workers and all(self.servers) else None

        await until(look, patience_s=PATIENCE_S)

    def client(self, place: int) -> httpx.AsyncClient | None:
        server = self.servers[place]
        return server[1] if server else None

    async def kill_worker(self, name: str) -> None:
        self.killed.add(name)
        worker = self.workers.pop(name)
        worker.kill()
        await worker.process.wait()

    def kill_server(self, place: int) -> None:
        server = self.servers[place]
        assert server is not None
        self.servers[place] = None
        server[0].kill()

    def stop(self) -> None:
        self._stopping = True
        for child in [*self.workers.values(), *(server[0] for server in self.servers if server)]:
            child.kill(signal.SIGTERM)


class AllEvents(Receiver):
    """The receiver of all webhooks."""

    async def until_ended(self, count: int) -> int:
        """Wait until the ends of so many jobs have been delivered; returns the number delivered by now."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: self._ended >= count)
        return self._ended

    @property
    def _ended(self) -> int:
        return len({received.id for received in self.received if received.path == "/all"})


class Clients:
    """The clients of all jobs, each with an idempotency key that makes it safe to repeat the create."""

    def __init__(self, luck: random.Random, fleet: Fleet, history: History, receiver: AllEvents, url: str) -> None:
        self._fleet = fleet
        self._history = history
        self._receiver = receiver
        self._url = url
        self._burst = luck.randrange(OPEN, JOBS // 2)
        self._killing: asyncio.Event | None = None
        self.jobs = [Job(number) for number in range(JOBS)]
        self.broken_off = 0
        """Creates that were cut off by the end of the server."""

    async def create_all(self) -> None:
        """Only so many at once, so that at every moment there is something of all under way."""
        async with asyncio.TaskGroup() as tasks:
            for job in self.jobs[: self._burst]:
                await self._receiver.until_ended(job.number - OPEN)
                tasks.create_task(self._create(job))
            await self._kill_a_server(self.jobs[self._burst : self._burst + BURST])
            for job in self.jobs[self._burst + BURST :]:
                await self._receiver.until_ended(job.number - OPEN)
                tasks.create_task(self._create(job))

    async def _kill_a_server(self, jobs: list[Job]) -> None:
        """In the middle of these creates: the upload of one is in the bucket, and no row is written yet. Those whose
        statements are under way will be written, but their clients get no answer."""
        async with asyncio.TaskGroup() as tasks, self._history.no_news(), asyncio.timeout(PATIENCE_S):
            self._killing = asyncio.Event()
            for job in jobs:
                tasks.create_task(self._create(job))
            await self._killing.wait()
            self._fleet.kill_server(jobs[0].server)

    def on_bucket_line(self, line: str) -> None:
        """Reads one line of the bucket's log, printed after each answer."""
        if self._killing is not None and re.search(r'"PUT /clips/uploads/\S+ HTTP\S+ 200', line):
            self._killing.set()

    async def _create(self, job: Job) -> None:
        places = (job.server, 1 - job.server) if job.at_both_servers else (job.server,)
        found = await asyncio.gather(*(self._ask(job, place) for place in places))
        assert len(set(found)) == 1, "one key, two videos"
        job.video_id = found[0]

    async def _ask(self, job: Job, first: int) -> str:
        """Ask until there is an answer, at the other server when one is gone."""

        async def ask(place: int) -> str | None:
            client = self._fleet.client(place)
            if client is None:
                return None
            try:
                response = await client.post("/v1/videos", **job.request(self._url))
            except httpx.TransportError:
                self.broken_off += 1
                return None
            assert response.status_code in (200, 202), response.text
            return str(response.json()["id"])

        async def look() -> str | None:
            return await ask(first) or await ask(1 - first)

        return await until(look, patience_s=PATIENCE_S)


class Reaper:
    """Kills workers in the middle of something, again and again while jobs end."""

    def __init__(
        self,
        luck: random.Random,
        fleet: Fleet,
        history: History,
        fakes: dict[str, FakeOpenAI],
        receiver: AllEvents,
    ) -> None:
        self._luck = luck
        self._fleet = fleet
        self._history = history
        self._fakes = fakes
        self._receiver = receiver
        self._stored: asyncio.Future[str] | None = None
        """The end of the lease in the key of the next video file that is stored in the bucket."""

    async def run(self) -> None:
        ended = 0
        while ended < UNDER_FIRE:
            for moment in self._luck.sample(MOMENTS, len(MOMENTS)):
                ended = await self._receiver.until_ended(min(UNDER_FIRE, ended + self._luck.randint(4, 14)))
                if ended >= UNDER_FIRE and len(self._fleet.killed) >= len(MOMENTS):
                    return
                await self._fleet.ready(WORKERS - 1)
                await (self._kill_after_a_file_was_stored() if moment == "stored" else self._kill_caller(moment))

    async def _kill_caller(self, moment: str) -> None:
        name = None
        while name is None:
            ambush = Ambush(accepted=self._luck.random() < 0.5)
            if moment == "delivery":
                self._receiver.script(ambush)
            else:
                self._fakes[self._luck.choice(sorted(self._fakes))].script(moment, ambush)
            async with asyncio.timeout(PATIENCE_S):
                await ambush.reached.wait()
            name = ambush.caller(self._fleet.workers)
            if name is not None:
                await self._fleet.kill_worker(name)
                log.info("%s killed in the middle of %s", name, moment)
            ambush.release.set()

    async def _kill_after_a_file_was_stored(self) -> None:
        name = ""
        while name not in self._fleet.workers:  # what a killed one stored may be logged late
            self._stored = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(PATIENCE_S):
                name = await self._history.holder(await self._stored)
        await self._fleet.kill_worker(name)
        log.info("%s killed just after it stored a file", name)

    def on_bucket_line(self, line: str) -> None:
        """Reads one line of the bucket's log, printed after each answer."""
        found = re.search(r'"PUT /clips/videos/\S+(.{10})\.mp4 HTTP\S+ 200', line)
        if found and self._stored is not None and not self._stored.done():
            self._stored.set_result(found[1])


async def test_nothing_is_lost_while_processes_are_killed(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"FLEET_SEED={SEED} is the seed of this run")  # noqa: T201  # to run the same kills again
    luck = random.Random(SEED)
    receiver = AllEvents()
    fakes = {name: FakeOpenAI(polls_until_working=0, polls_until_done=0) for name in ("plain", "keyed")}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(scratch_database(postgres))
        bucket = await stack.enter_async_context(open_bucket(tmp_path))
        receiver_url = await stack.enter_async_context(serve(receiver))
        settings = {**SETTINGS, "database_url": url, "data_dir": tmp_path / "data", "storage_url": bucket.url}
        for name, more in (("plain", {}), ("keyed", {"idempotency": "header"})):
            upstream = await stack.enter_async_context(serve(fakes[name]))
            settings |= provider(upstream, called=name, concurrency=CONCURRENCY, **more)
        await ran("migrate", cwd=tmp_path, **settings)
        history = await stack.enter_async_context(History.of(url))
        fleet = Fleet(tmp_path, settings, bucket.environment)
        clients = Clients(luck, fleet, history, receiver, receiver_url)
        reaper = Reaper(luck, fleet, history, fakes, receiver)

        bucket.child.listeners += [clients.on_bucket_line, reaper.on_bucket_line]
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(fleet.keep_worker())
            for place in range(2):
                tasks.create_task(fleet.keep_server(place))
            await fleet.ready()
            secrets = await endpoint_of(fleet, receiver_url)
            creating = tasks.create_task(clients.create_all())
            await reaper.run()
            await creating
            await settled(history)
            await fleet.ready()

            videos = await shown(fleet)
            await check_kills(fleet, clients, history)
            await check_ends(videos, clients, fleet, history)
            check_submits(videos, clients, fakes)
            await check_files(videos, clients, fleet, hashlib.sha256(fakes["plain"].file).hexdigest())
            check_events(videos, clients, receiver, secrets)
            fleet.stop()
        assert "exception" not in "\n".join(child.printed for child in fleet.gone)
        await check_bucket(bucket, history, settings, monkeypatch)


async def endpoint_of(fleet: Fleet, receiver: str) -> dict[str, str]:
    """Register the receiver for everything; returns the secrets by the first part of the path they sign for."""
    client = fleet.client(0)
    assert client is not None
    body = {"name": "all", "url": f"{receiver}/all", "event_types": ["video.completed", "video.failed"]}
    endpoint = await client.post("/v1/webhook_endpoints", json=body)
    own = await client.get("/v1/webhooks/secret")
    return {"all": endpoint.json()["signing_secret"], "job": own.json()["key"]}


async def settled(history: History) -> None:
    """Until every job has ended, every task has, and every event was delivered."""

    async def look() -> bool | None:
        left = await history.rows("""
            select from videos where ended_at is null union all select from attempts where ended_at is null
            union all select from deliveries where state = 'pending'
        """)
        return None if left else True

    await until(look, patience_s=PATIENCE_S)


async def shown(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """All videos as clients see them, by their prompt; the same at both servers but for their address."""
    found = []
    for client in (fleet.client(0), fleet.client(1)):
        assert client is not None
        videos: list[dict[str, Any]] = []
        more: dict[str, Any] = {"has_more": True, "last_id": ""}
        while more["has_more"]:
            query = {"limit": 100, "order": "asc", "after": more["last_id"]}
            more = (await client.get("/v1/videos", params=query)).json()
            videos += more["data"]
        found.append(videos)
    assert [(v["id"], v["status"]) for v in found[0]] == [(v["id"], v["status"]) for v in found[1]]
    return {video["prompt"]: video for video in found[0]}


async def check_kills(fleet: Fleet, clients: Clients, history: History) -> None:
    """The kills have really happened: workers died with work of every kind in their hands, and a server
    in the middle of requests."""
    taken = Counter((what, was) for who, what, _, was in await history.taken_over() if who in fleet.killed)
    log.info("%s workers killed, taken over from them: %s", len(fleet.killed), dict(taken))
    log.info("creates broken off: %s", clients.broken_off)
    assert len(fleet.killed) >= len(MOMENTS)
    states = {("attempts", "submitting"), ("attempts", "running"), ("attempts", "storing"), ("deliveries", "pending")}
    assert states <= set(taken) <= states | {("attempts", "pending")}
    assert clients.broken_off > 0


async def check_ends(videos: dict[str, dict[str, Any]], clients: Clients, fleet: Fleet, history: History) -> None:
    """Every job is there once and has ended once, well but for those whose submit was cut off at the upstream that
    takes no key."""
    assert {job.prompt: job.video_id for job in clients.jobs} == {p: video["id"] for p, video in videos.items()}
    ends = await history.rows(
        "select id, count(*) from history where became in ('completed', 'failed') and what = 'videos' group by id"
    )
    assert dict(ends) == {video["id"]: 1 for video in videos.values()}
    videos_of = dict(await history.rows("select id, video_id from attempts where provider = 'plain'"))
    taken = await history.taken_over()
    cut_off = {
        videos_of[i]: who for who, what, i, was in taken if (what, was) == ("attempts", "submitting") and i in videos_of
    }
    failed = {video["id"]: video["error"]["code"] for video in videos.values() if video["status"] == "failed"}
    assert failed == dict.fromkeys(cut_off, "upstream_outcome_unknown")
    assert set(cut_off.values()) <= fleet.killed
    assert {video["status"] for video in videos.values()} <= {"completed", "failed"}


def check_submits(videos: dict[str, dict[str, Any]], clients: Clients, fakes: dict[str, FakeOpenAI]) -> None:
    """Nothing was paid for twice: one call for each prompt, or several with one key."""
    prompts = {name: {job.prompt for job in clients.jobs if job.upstream == name} for name in fakes}
    plain = Counter(call.fields["prompt"] for call in fakes["plain"].submits)
    assert set(plain.values()) == {1}
    done = {prompt for prompt in prompts["plain"] if videos[prompt]["status"] == "completed"}
    assert done <= set(plain) <= prompts["plain"]
    keyed = {(call.fields["prompt"], call.headers["idempotency-key"]) for call in fakes["keyed"].submits}
    assert {prompt for prompt, _ in keyed} == prompts["keyed"]
    assert len(keyed) == len({key for _, key in keyed}) == len(fakes["keyed"].jobs) == len(prompts["keyed"])
    log.info("never sent: %s of %s lost", len(prompts["plain"] - set(plain)), len(prompts["plain"] - done))


async def check_files(videos: dict[str, dict[str, Any]], clients: Clients, fleet: Fleet, sha256: str) -> None:
    """The file of every finished video can be read at the server that did not create it."""
    room = asyncio.Semaphore(8)

    async def check(job: Job) -> None:
        client = fleet.client(1 - job.server)
        assert client is not None
        async with room:
            response = await client.get(f"/v1/videos/{job.video_id}/content")
        assert (response.status_code, hashlib.sha256(response.content).hexdigest()) == (200, sha256)

    done = [job for job in clients.jobs if videos[job.prompt]["status"] == "completed"]
    await asyncio.gather(*(check(job) for job in done))


def check_events(
    videos: dict[str, dict[str, Any]], clients: Clients, receiver: AllEvents, secrets: dict[str, str]
) -> None:
    """Every receiver got the end of its jobs, under one id however often, with a valid signature."""
    by_id = {video["id"]: video for video in videos.values()}
    delivered: dict[tuple[str, str], set[str]] = {}
    with OpenAI(api_key="unused") as client:
        for received in receiver.received:
            event: Any = client.webhooks.unwrap(
                received.body, received.headers, secret=secrets[received.path.split("/")[1]]
            )
            video = by_id[event.data.id]
            assert event.type == f"video.{video['status']}"
            if received.path != "/all":
                data = received.json["data"]
                assert data["status"] == video["status"]
                assert data.get("error") == (video["error"] if video["status"] == "failed" else None)
            delivered.setdefault((received.path, video["id"]), set()).add(received.id)
    wanted = {("/all", job.video_id) for job in clients.jobs}
    wanted |= {(job.path, job.video_id) for job in clients.jobs if job.path is not None}
    assert set(delivered) == wanted
    assert {len(ids) for ids in delivered.values()} == {1}
    log.info("%s deliveries of %s events", len(receiver.received), len(wanted))


async def check_bucket(
    bucket: Bucket, history: History, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file belongs to a video, none is half stored. The exceptions are uploads: those stored just before a kill,
    purged an hour later, and those that may have to be sent again, until an operator can no longer decide that."""
    assert await bucket.unfinished() == []
    owned = {row[0] for row in await history.rows("select jsonb_array_elements(outputs) ->> 'key' from videos")}
    keys = set(await bucket.keys())
    uploads = {key for key in keys if key.startswith("uploads/")}
    log.info("uploads left for the purge: %s", len(uploads))
    assert keys - uploads == owned
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    given = load(_env_file=None, **{**settings, "api_keys": [ALICE]})
    undecided = {row[0] for row in await history.rows("select id from videos where settlement = 'held'")}
    waiting = {key for key in uploads if key.split("/")[1] in undecided}
    clock = Clock()
    async with open_parts(given, clock=clock) as parts:
        for later_s, left in ((7_200, waiting), (given.late_watch_s, set())):
            clock.advance(later_s)
            await parts.worker.purge()
            assert set(await bucket.keys()) == owned | left
