"""The README's commands that run a gateway in several processes; a file of its own, as test_readme_models.py."""

import signal
from pathlib import Path

import pages
import pytest
from processes import running

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROCESSES = pages.read("README.md").one("sh", "migrate")
SEVERAL_MACHINES = pages.read("docs/deploy.md").one("sh", "serve --no-worker")


async def test_the_commands_that_run_a_gateway_run(database_url: str, tmp_path: Path) -> None:
    export, *commands = pages.commands(PROCESSES)
    assert export[0] == "export"
    assert [words for words in commands if words[1] in ("serve", "worker")] == pages.commands(SEVERAL_MACHINES)
    assert export[1].startswith("GATEWAY_DATABASE_URL=")
    for _, *words in commands:
        port = ["--port", "0"] if words[0] == "serve" else []
        async with running(*words, *port, cwd=tmp_path, database_url=database_url, data_dir=tmp_path / "data") as child:
            if words[0] in ("serve", "worker"):
                await child.line("started")
                child.kill(signal.SIGTERM)
            assert await child.end() == 0, child.printed
    assert "vgw_" in child.printed
