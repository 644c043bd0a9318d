"""A gateway before its backup and after the restore, as processes: keys, links and money are as they were, and what may
have been sent in between is not paid for twice."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import serve
from harness import scratch_database
from processes import Served, address_of, postgres_of, provider, ran, running, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PRICE, SECONDS, CREDIT = 0.1, 4, 10


@asynccontextmanager
async def opened(key: str, *arguments: str, cwd: Path, **settings: Any) -> AsyncIterator[Served]:
    """A gateway whose keys are in its database."""
    async with running("serve", "--port", "0", *arguments, cwd=cwd, **settings) as child:
        yield Served(child, await address_of(child), key)
        assert await child.stop() == 0


async def get(gateway: Served, path: str) -> Any:
    async with gateway.client() as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.content


async def test_a_restored_gateway_pays_for_nothing_twice(
    fake: FakeOpenAI, database_url: str, postgres: str, tmp_path: Path
) -> None:
    backup, model = str(tmp_path / "gateway.backup"), {"model": "up/sora-2", "seconds": str(SECONDS)}
    async with serve(fake) as upstream, scratch_database(postgres) as other:
        settings: dict[str, Any] = {
            "storage_url": f"file://{tmp_path}/files",
            "worker_tick_s": 0.05,
            "poll_interval_s": 0.1,
            "allow_networks": "127.0.0.0/8",
            "prices": json.dumps({"up/sora-2": PRICE}),
            **provider(upstream),
        }
        before = {**settings, "database_url": database_url, "data_dir": tmp_path / "data"}
        await ran("projects", "create", "shop", "--billing", "prepaid", cwd=tmp_path, **before)
        await ran("projects", "credit", "shop", str(CREDIT), cwd=tmp_path, **before)
        key = (await ran("keys", "create", "web", "--project", "shop", cwd=tmp_path, **before)).out[-1]
        async with opened(key, cwd=tmp_path, **before) as gateway:
            made = await gateway.finished(await gateway.create(**model))
            file = await gateway.content(made["id"])
        async with opened(key, "--no-worker", cwd=tmp_path, **before) as gateway:
            waiting = await gateway.create(**model)
            balance = await get(gateway, "/v1/balance")
            await ran("backup", backup, cwd=tmp_path, **before)
        async with opened(key, cwd=tmp_path, **before) as gateway:
            later = await gateway.create(**model)
            for video_id in (waiting, later):
                assert (await gateway.finished(video_id))["status"] == "completed"
        assert len(fake.submits) == 3

        after = {**settings, "database_url": other, "data_dir": tmp_path / "restored"}
        restored = await ran("restore", backup, "--yes", cwd=tmp_path, **after)
        assert "Submits that may have been sent since the backup: 1." in restored.printed
        async with opened(key, cwd=tmp_path, **after) as gateway:
            assert (await gateway.finished(waiting))["error"]["code"] == "upstream_outcome_unknown"
            assert await gateway.content(made["id"]) == file
            assert await get(gateway, "?".join(urlsplit(made["output"]["url"])[2:4])) == file, "the link of before"
            assert await get(gateway, "/v1/balance") == balance, "the money of the unknown outcome stays held"
            refused = await ran("restore", backup, "--yes", "--replace", cwd=tmp_path, code=1, **after)
            assert "the gateway runs" in refused.err[-1]
        status = json.loads("\n".join((await ran("status", "--json", cwd=tmp_path, **after)).out))
        assert [one["video"] for one in status["undecided"]] == [waiting]
        assert status["last_24_h"]["created"] == 2, "the one that was created after the backup is gone"
        assert len(fake.submits) == 3


async def test_the_embedded_database_is_backed_up_while_it_runs(passable: Path) -> None:
    backup, old, new = str(passable / "gateway.backup"), passable / "data", passable / "new"
    async with served(cwd=passable) as gateway:
        video_id = await gateway.create(model="sandbox/testcard", seconds="1")
        assert (await gateway.finished(video_id))["status"] == "completed"
        file = await gateway.content(video_id)
        await ran("backup", backup, cwd=passable)
        refused = await ran("restore", backup, "--yes", "--replace", cwd=passable, code=1)
        assert "the gateway runs" in refused.err[-1]
        assert await gateway.child.stop() == 0
    shutil.copytree(old / "media", new / "media")
    await ran("restore", backup, "--yes", cwd=passable, data_dir=new)
    assert postgres_of(new) == []
    async with served(cwd=passable, data_dir=new) as again:
        assert again.key == gateway.key
        assert await again.content(video_id) == file
