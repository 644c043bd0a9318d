"""A primary with a synchronous standby: read-only for a while, then killed under load, and the standby promoted."""

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import psycopg
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE
from processes import Served, postgres_of, served, until

from app import settings
from app.db.embedded import SOCKET, Embedded
from app.db.migrate import upgrade_schema
from app.main import open_parts
from app.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

JOBS = 24
AFTER_THE_KILL = 6
BEFORE_THE_KILL = 8
"""Accepted jobs before the primary is killed."""


class Server(Embedded):
    """An embedded server that can be the standby of another."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(mode=0o711)
        super().__init__(data_dir)
        self.data_dir = data_dir

    @property
    def host(self) -> str:
        return str(self._socket_dir)

    def follow(self, primary: "Server") -> None:
        self._pgdata.mkdir(mode=0o700)
        os.chown(self._pgdata, self._uid, self._gid)
        self._call("pg_basebackup", "-h", primary.host, "-U", "postgres", "-R", "-X", "stream", "-c", "fast")
        (self._pgdata / f"{SOCKET}.lock").unlink()  # of the primary, whose socket is in its data directory
        self.start()

    def promote(self) -> None:
        self._call("pg_ctl", "promote", "-w")

    def kill(self) -> None:
        """End all its processes as a power cut would."""
        processes = [psutil.Process(pid) for pid in postgres_of(self.data_dir)]
        processes += [child for parent in processes for child in parent.children(recursive=True)]
        assert processes
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    async def run(self, *statements: str) -> list[Any]:
        found: list[Any] = []
        async with await psycopg.AsyncConnection.connect(self.get_uri(), autocommit=True) as connection:
            for statement in statements:
                cursor = await connection.execute(statement.encode())
                found = await cursor.fetchall() if cursor.description else []
        return found


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Server, Server]]:
    """A primary, and a standby that confirms each commit."""
    with tempfile.TemporaryDirectory(prefix="gateway-pair-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        await asyncio.to_thread(directory.chmod, 0o711)
        primary, standby = Server(directory / "a"), Server(directory / "b")
        try:
            await asyncio.to_thread(primary.start)
            await primary.run("alter system set fsync = off", "select pg_reload_conf()")
            await asyncio.to_thread(standby.follow, primary)
            await primary.run("alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")

            async def confirms() -> bool | None:
                return await primary.run("select sync_state from pg_stat_replication") == [("sync",)] or None

            await until(confirms)
            yield primary, standby
        finally:
            for server in (primary, standby):
                await asyncio.to_thread(server.cleanup)


async def accepted(client: httpx.AsyncClient, number: int, turns: asyncio.Semaphore) -> str:
    """Create a video as a patient client does: with an idempotency key, again after each 503."""
    body = {"prompt": f"boat {number}", "model": "up/sora-2"}

    async def create() -> str | None:
        answer = await client.post("/v1/videos", json=body, headers={"idempotency-key": f"boat {number}"})
        if answer.status_code == 202:
            return str(answer.json()["id"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
        return None

    async with turns:
        return await until(create)


async def ready(client: httpx.AsyncClient) -> bool | None:
    return (await client.get("/readyz")).status_code == 200 or None


async def read_only_for_a_while(primary: Server, gateway: Served) -> None:
    async with gateway.client() as client:
        switch = "alter system set default_transaction_read_only = {}"
        await primary.run(switch.format("on"), "select pg_reload_conf()")
        await gateway.child.line("the database is read-only")  # a worker met it
        answer = await client.post("/v1/videos", json={"prompt": "a kite", "model": "up/sora-2"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
        seen = await client.get("/readyz")
        assert seen.status_code == 503
        assert seen.json()["reason"] == "the database is read-only: it is a standby, or was switched to read-only"
        await primary.run("set default_transaction_read_only = off", switch.format("off"), "select pg_reload_conf()")
        await until(lambda: ready(client))


@asynccontextmanager
async def another_worker(config: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """A second worker, in this process."""
    async with open_parts(config) as parts:
        working = asyncio.create_task(parts.worker.run())
        yield working
        parts.worker.stop()
        await working


async def test_a_fail_over_loses_nothing_and_needs_no_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with pair() as (primary, standby), serve(fake) as upstream:
        hosts = f"{quote(primary.host, safe='')},{quote(standby.host, safe='')}"
        url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        await upgrade_schema(url)
        up = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY, "poll_interval_s": 0.3}
        shared: dict[str, Any] = {
            "database_url": url,
            "data_dir": tmp_path / "data",
            "api_keys": ALICE,
            "pepper": "pepper",
            "lease_s": 5,
            "worker_tick_s": 0.1,
        }
        async with (
            served(cwd=tmp_path, **shared, providers=json.dumps({"up": up})) as gateway,
            another_worker(settings.load(**shared, providers={"up": up})) as working,
            gateway.client() as client,
        ):
            await read_only_for_a_while(primary, gateway)
            turns = asyncio.Semaphore(2)  # so that some are under way and some still to come when the primary goes
            creating = [asyncio.create_task(accepted(client, number, turns)) for number in range(JOBS - AFTER_THE_KILL)]
            for done in asyncio.as_completed(creating[:BEFORE_THE_KILL]):
                await done
            killing = asyncio.create_task(asyncio.to_thread(primary.kill))
            late = range(JOBS - AFTER_THE_KILL, JOBS)
            creating += [asyncio.create_task(accepted(client, number, turns)) for number in late]
            await killing
            await asyncio.to_thread(standby.promote)

            videos = await asyncio.gather(*creating)
            assert len(set(videos)) == JOBS
            ended = [await gateway.finished(video_id) for video_id in videos]
            assert Counter(video["status"] for video in ended) == {"completed": JOBS}
            assert Counter(call.fields["prompt"] for call in fake.submits) == {f"boat {n}": 1 for n in range(JOBS)}
            assert await standby.run("select count(*) from videos") == [(JOBS,)]
            assert await ready(client)
            assert gateway.child.process.returncode is None
            assert not working.done()
            for said in (gateway.child.printed, capsys.readouterr().out):
                assert "database unavailable" in said
                assert "Traceback" not in said
                assert '"exception"' not in said
