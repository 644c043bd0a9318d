"""The OpenAPI document is one from which others generate clients: its rules, a Python client, a TypeScript client."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pages
import pytest
from docs.listening import is_a_video
from fakes.server import serve
from harness import ALICE, Clock, RealClock, StartGateway
from programs import missing, need

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HERE = Path(__file__).parent
PATIENCE_S = 300
PAGE = pages.read("docs/clients.md")
COMMANDS, CONFIG = PAGE.one("bash", "openapi-python-client"), PAGE.one("yaml", "content_type_overrides")
CHECKER = ("mypy==2.4.1", "types-python-dateutil", "httpx", "attrs", "python-dateutil")
"""Packages that the Python client needs, and its type checker."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; returns what it printed."""
    env = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
    env.pop("VIRTUAL_ENV", None)
    ran = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}"
    return ran.stdout


def generate(program: str, served: "Served") -> str:
    """Run the documentation's command of this program, with the address of the gateway; returns what it printed."""
    commands = pages.commands(COMMANDS.replace("https://video.example.com", served.url))
    (words,) = (words for words in commands if words[0] == program)
    return run(need(program, path=UV_PATH), *words[1:], cwd=served.folder)


UV_PATH = f"{os.environ['PATH']}:{pages.ROOT / '.uv' / 'bin'}"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The beginning of a command in an environment for the Python client, whose packages do not go with ours."""
    packages = [word for package in CHECKER for word in ("--with", package)]
    isolated = ("run", "--quiet", "--no-project", "--isolated", "--python", sys.executable)
    command = (need("uv", path=UV_PATH), *isolated, *packages)
    try:
        run(*command, "mypy", "--version", cwd=tmp_path_factory.mktemp("uv"))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        missing(f"uv could not install the packages: {str(error)[-500:]}")
    return command


@pytest.fixture
def clock() -> Clock:
    """The clients wait in real time, so the gateway's time has to pass too."""
    return RealClock()


@dataclass
class Served:
    url: str
    folder: Path
    operations: int


@pytest.fixture
async def served(start_gateway: StartGateway, tmp_path: Path) -> AsyncIterator[Served]:
    """A running gateway whose document is in `openapi.json`."""
    quick = {"sandbox": {"testcard_s": 0, "poll_interval_s": 0.05}}
    async with (
        start_gateway(run_worker=True, worker_tick_s=0.02, providers=quick) as gateway,
        serve(gateway.app) as url,
        httpx.AsyncClient() as client,
    ):
        document = (await client.get(f"{url}/openapi.json")).text
        (tmp_path / "openapi.json").write_text(document)
        yield Served(url, tmp_path, len(operations_of(json.loads(document))))


def operations_of(document: dict[str, Any]) -> list[str]:
    return [operation["operationId"] for path in document["paths"].values() for operation in path.values()]


async def test_the_document_keeps_the_rules_of_redocly(served: Served, node_modules: Path) -> None:
    command = (node_modules / ".bin" / "redocly", "lint", "--config", HERE / "redocly.yaml", "openapi.json")
    said = await asyncio.to_thread(run, *command, cwd=served.folder)
    assert "warning" not in said, said


async def test_a_python_client_makes_a_video(served: Served, checked: tuple[str, ...]) -> None:
    (served.folder / "config.yaml").write_text(CONFIG)
    said = await asyncio.to_thread(generate, "uvx", served)
    assert "WARNING" not in said, said
    project = served.folder / "video-gateway-client"
    modules = [path for path in (project / "video_gateway_client/api").glob("*/*.py") if path.name != "__init__.py"]
    assert len(modules) == served.operations

    shutil.copy(HERE / "make_video.py", project)
    # The generator's own `client.py` is not strict.
    typed = ("mypy", "--strict", "--follow-imports=silent", "make_video.py")
    parts = ("video_gateway_client/api", "video_gateway_client/models")
    await asyncio.to_thread(run, *checked, *typed, *parts, cwd=project)
    script = ("python", "make_video.py", served.url, ALICE, served.folder / "python.mp4")
    assert await asyncio.to_thread(run, *checked, *script, cwd=project) == "not_found\n"
    assert is_a_video(served.folder / "python.mp4")


async def test_a_typescript_client_makes_a_video(served: Served, node_modules: Path) -> None:
    (served.folder / "node_modules").symlink_to(node_modules)
    said = await asyncio.to_thread(generate, "npx", served)
    assert "warn" not in said.lower(), said
    code = (served.folder / "client/sdk.gen.ts").read_text()
    assert code.count("\nexport const ") == served.operations

    for name in ("make_video.ts", "tsconfig.json"):
        shutil.copy(HERE / name, served.folder)
    await asyncio.to_thread(run, node_modules / ".bin" / "tsc", cwd=served.folder)
    made = await asyncio.to_thread(run, need("node"), "built/make_video.js", ALICE, "node.mp4", cwd=served.folder)
    assert made == "not_found true\n"
    assert is_a_video(served.folder / "node.mp4")
