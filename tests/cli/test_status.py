"""`video-gateway status`: one screen of the running gateway, and exit code 1 without its database."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import Command
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Reset, closed_port, serve
from harness import StartGateway
from processes import ran

from app.jobs.presence import RELEASE

pytestmark = pytest.mark.anyio

ENDPOINT = {"name": "mine [red]", "url": "http://127.0.0.1:9/", "event_types": ["video.completed"]}


async def test_the_screen_shows_jobs_decisions_circuits_webhooks_and_money(
    start_gateway: StartGateway, fake: FakeOpenAI, command: Command, database_url: str
) -> None:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": up}, prices={"up/sora-2": 0.5}) as gateway:
            endpoint = (await gateway.client.post("/v1/webhook_endpoints", json=ENDPOINT)).json()
            await gateway.finish((await gateway.create(model="up/sora-2", seconds="4"))["id"])
            fake.script("submit", Answer(400, {"error": {"message": "no"}}), Reset())
            for status in ("failed", "failed"):  # refused, and an unknown outcome
                video = await gateway.finish((await gateway.create(model="up/sora-2", seconds="4"))["id"])
                assert video["status"] == status
            unfinished = await gateway.create(model="up/sora-2", seconds="4")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for statement in (
            f"update webhook_endpoints set disabled_at = now(), disabled_reason = 'gone' where id = '{endpoint['id']}'",
            "update provider_health set open_until = now() + interval '1 h' where name = 'up' and project_id = ''",
            "insert into workers (id, host, pid, version, started_at, seen_at) "
            f"values ('a', 'host-a', 7, '{RELEASE}', now(), now())",
            f"update attempts set created_at = now() - interval '3 h' where video_id = '{unfinished['id']}'",
        ):
            await connection.execute(statement.encode())
    found = (await command("status", "--json")).document
    assert (found["version"], found["workers"][0]["host"]) == (RELEASE, "host-a")
    (job,) = found["jobs"]
    assert (job["provider"], job["state"], job["count"]) == ("up", "pending", 1)
    assert job["oldest_s"] >= 3 * 3600
    (circuit,) = found["circuits"]
    assert (circuit["provider"], circuit["project"]) == ("up", None)
    (undecided,) = found["undecided"]
    assert undecided["held_usd"] == 2
    assert found["held_usd"] == 4, "of the unknown outcome and of the unfinished one"
    assert found["webhooks"]["pending"] == 1
    (disabled,) = found["webhooks"]["disabled_endpoints"]
    assert (disabled["id"], disabled["name"], disabled["disabled_reason"]) == (endpoint["id"], "mine [red]", "gone")
    day = found["last_24_h"]
    assert (day["created"], day["completed"], day["failed"], day["cancelled"]) == (4, 1, 2, 0)

    screen = (await command("status")).out
    for words in (
        f"video-gateway {RELEASE}, schema {found['schema']}",
        "3 h",
        undecided["id"],
        "curl http://127.0.0.1:8080/admin/v1/repairs/ATTEMPT",
        "mine [red]",
        "all projects",
        "Webhooks waiting: 1, the oldest for ",
        "Videos of the last 24 hours: 1 completed, 2 failed",
        "Money held: $4",
    ):
        assert words in screen, screen
    assert "\ufffd" not in screen


async def test_an_idle_gateway_has_an_empty_screen(command: Command) -> None:
    found = await command("status")
    assert found.code == 0
    assert "Workers: none runs; video-gateway serve" in found.out
    assert "Submits of unknown outcome: none" in found.out
    assert found.out.splitlines()[-1] == "Money held: $0"


async def test_without_the_database_the_exit_code_is_1(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"database_url": f"postgresql://me:sekret-word@{closed_port()[7:]}/x"}
    child = await ran("status", "--json", cwd=tmp_path, code=1, **settings)
    assert child.out == []
    assert "cannot be reached" in child.err[-1]
    assert "sekret" not in child.printed
