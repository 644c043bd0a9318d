"""The code in docs/clients.md, run as it is written there."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.server import serve
from harness import ALICE, Clock, Running, StartGateway

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text("utf-8")
PATIENCE_S = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


class RealClock(Clock):
    def __call__(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
def clock() -> Clock:
    return RealClock()


@pytest.fixture
async def served(start_gateway: StartGateway) -> AsyncIterator[tuple[Running, str]]:
    card = {"routes": ["sandbox/testcard"]}
    async with (
        start_gateway(
            run_worker=True,
            worker_tick_s=0.02,
            providers={"sandbox": {"testcard_s": 0, "poll_interval_s": 0.05}},
            models=dict.fromkeys(("sora-2", "seedance-2", "google/veo-3.0-generate-preview"), card),
        ) as gateway,
        serve(gateway.app) as url,
    ):
        yield gateway, url


async def run(*command: str, folder: Path, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_python_example_makes_a_video(served: tuple[Running, str], tmp_path: Path) -> None:
    gateway, url = served
    script = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + "\n".join(blocks("python"))
    script = script.replace("https://video.example.com", url).replace("vgw_...", ALICE)
    printed = await run(sys.executable, "-c", script, folder=tmp_path)
    assert f"{url}/media/video_" in printed
    assert (tmp_path / "boat.mp4").read_bytes()[4:8] == b"ftyp"
    assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 4


async def test_the_curl_example_makes_a_video(served: tuple[Running, str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None or shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    gateway, url = served
    video_id = (await gateway.create(seconds=1, size="320x240"))["id"]
    while (await gateway.client.get(f"/v1/videos/{video_id}", params={"wait": "25"})).json()["status"] != "completed":
        pass
    script = "set -e\n" + "\n".join(blocks("sh"))
    await run(bash, "-c", script, folder=tmp_path, URL=url, KEY=ALICE, ID=video_id)
    assert (tmp_path / "boat.mp4").read_bytes()[4:8] == b"ftyp"
    assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 8
