"""The README as a newcomer follows it: each block is pasted in a fresh directory."""

import os
import signal
import sys
from pathlib import Path

import pages
import pytest
from docs.listening import is_a_video
from processes import running
from programs import need

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("README.md")
START, GENERATE, PYTHON = PAGE.one("sh", "make run"), PAGE.one("sh", "generate"), PAGE.one("python")
LOOK = PAGE.one("sh", "doctor")


async def test_a_newcomer_starts_the_gateway_and_makes_videos(home: Path) -> None:
    need("make")
    assert pages.commands(START) == [["make", "run"]]
    command = ("make", "--file", str(pages.ROOT / "Makefile"), "run", "ARGS=--port 0")
    environment = {
        "GATEWAY_LOG_FORMAT": "console",
        "UV_PROJECT": str(pages.ROOT),
        "PATH": f"{pages.ROOT / '.uv' / 'bin'}:{os.environ['PATH']}",
    }
    async with running(cwd=home, command=command, environment=environment) as child:
        url = (await child.line(r"ready at (http://\S+)/v1 ")).group(1)
        key = (await child.line(r"API key: (\S+)")).group(1)
        await child.line("Ctrl-C")

        (home / ".venv").symlink_to(Path(sys.executable).parents[1])
        printed = await pages.shell(GENERATE, folder=home, OPENAI_BASE_URL=f"{url}/v1")
        assert is_a_video(home / printed.split()[-1])

        script = PYTHON.replace("http://127.0.0.1:8080", url).replace("the printed key", key)
        assert script.count(url) + script.count(key) == 2
        await pages.run(sys.executable, "-W", "ignore", "-c", script, folder=home)
        assert is_a_video(home / "boat.mp4")

        looked = await pages.shell(LOOK, folder=home)
        for found in ("ok       database", "ok       workers", "Money held"):
            assert found in looked

        child.kill(signal.SIGINT, group=True)
        await child.end()
        assert "Traceback" not in child.printed
        assert "make: ***" not in child.printed
