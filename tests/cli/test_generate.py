"""The client of the command line when it is stopped: the video's id, resume and cancel; keys by name; a worker that
runs once."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import Command
from harness import ALICE
from processes import Served, ran, running, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    pepper = "a pepper of the tests"
    return {"database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE, "pepper": pepper}


@pytest.fixture
async def gateway(settings: dict[str, Any], tmp_path: Path) -> AsyncIterator[Served]:
    """A gateway without a worker, so that a job waits for the test."""
    async with served("--no-worker", cwd=tmp_path, **settings) as running:
        yield running


async def interrupted(gateway: Served, tmp_path: Path, settings: dict[str, Any]) -> str:
    """Id of a video whose `generate` was stopped by Ctrl-C."""
    arguments = ("generate", "a kite", "--seconds", "1", "--size", "128x128", "--url", f"{gateway.url}/v1")
    async with running(*arguments, cwd=tmp_path, **settings) as child:
        found = await child.line(r"^(video_\w+) queued$")
        assert await child.stop(signal.SIGINT) == 130
    assert child.out == []
    rest = child.err[child.err.index(found[0]) + 1 :]
    assert rest == [
        f"{found[1]} is still being made.",
        f"  wait for it and save it:  video-gateway generate --resume {found[1]} --url {gateway.url}/v1",
        f"  cancel it:                video-gateway cancel {found[1]} --url {gateway.url}/v1",
    ]
    return found[1]


async def test_a_stopped_generate_says_how_to_go_on_and_the_video_can_be_had(
    gateway: Served, settings: dict[str, Any], tmp_path: Path
) -> None:
    video_id = await interrupted(gateway, tmp_path, settings)
    resume = ("generate", "--resume", video_id, "--out", "kite.mp4", "--url", f"{gateway.url}/v1")
    async with running(*resume, cwd=tmp_path, **settings) as child:
        await child.line(f"^{video_id} ")
        ending = asyncio.create_task(child.end())
        while not ending.done():
            taken = httpx.URL(gateway.url).port  # as the port of another worker on the machine is
            worker = await ran(
                "worker", "--once", "--concurrency", "3", cwd=tmp_path, **settings, worker_metrics_port=taken
            )
            assert "worker finished" in worker.printed
        assert await ending == 0, child.printed
    assert child.out == ["kite.mp4"]
    assert (tmp_path / "kite.mp4").read_bytes()[4:8] == b"ftyp"
    kept = await ran("cancel", video_id, "--url", f"{gateway.url}/v1", cwd=tmp_path, code=1, **settings)
    assert "the video has ended meanwhile, so it was not cancelled" in kept.printed
    async with gateway.client() as client:
        assert (await client.get(f"/v1/videos/{video_id}")).json()["status"] == "completed"
        left = await client.delete(f"/v1/videos/{video_id}", params={"expect": "running"})
        assert (left.status_code, left.json()["error"]["code"]) == (409, "video_changed")
        assert (await client.delete(f"/v1/videos/{video_id}", params={"expect": "ended"})).status_code == 200


async def test_a_video_is_cancelled_by_its_id(gateway: Served, settings: dict[str, Any], tmp_path: Path) -> None:
    video_id = await interrupted(gateway, tmp_path, settings)
    url = ("--url", f"{gateway.url}/v1")
    done, strange, absent = (
        await ran("cancel", video_id, *url, cwd=tmp_path, **settings),
        await ran("cancel", "../files", *url, cwd=tmp_path, code=1, **settings),
        await ran("generate", "--resume", f"{video_id[:-1]}0", *url, cwd=tmp_path, code=1, **settings),
    )
    assert f"{video_id} is cancelled." in done.err
    assert "'../files' is not the id of a video" in strange.printed
    assert "no video has the id" in absent.printed
    async with gateway.client() as client:
        video = (await client.get(f"/v1/videos/{video_id}")).json()
        left = await client.delete(f"/v1/videos/{video_id}", params={"expect": "gone"})
    assert (video["status"], video["error"]["code"]) == ("failed", "cancelled")
    assert left.status_code == 400


async def test_a_prompt_and_a_video_to_resume_exclude_each_other(command: Command) -> None:
    for arguments in (("a kite", "--resume", "video_1"), (), ("--resume", "video_1", "--seconds", "4")):
        refused = await command("generate", *arguments)
        assert refused.code == 2
        assert "expected a prompt and its options, or --resume ID" in " ".join(refused.err.replace("│", " ").split())


async def test_keys_are_revoked_by_their_name(command: Command) -> None:
    for project in ("one", "other"):
        assert (await command("projects", "create", project)).code == 0
        assert (await command("keys", "create", "twice", "--project", project)).code == 0
    assert (await command("keys", "create", "web shop")).code == 0
    updated = await command("keys", "update", "web shop", "--requests-per-minute", "5")
    assert updated.out == "The key web shop is changed.\n"
    assert (await command("keys", "revoke", "web shop")).out == "The key web shop is revoked.\n"
    with pytest.raises(Exception, match="no key has the id or name 'web shop'; see `video-gateway keys list`"):
        await command("keys", "revoke", "web shop")
    with pytest.raises(Exception, match=r"several keys are named 'twice'; give the id of one: key_\w+ \(project"):
        await command("keys", "revoke", "twice")
