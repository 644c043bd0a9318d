"""The OpenAPI document is one from which others generate clients: its rules, a Python client, a TypeScript client."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pages
import pytest
from fakes.server import serve
from harness import ALICE, Clock, StartGateway

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PATIENCE_S = 300
PAGE = pages.read("docs/clients.md")
COMMANDS, OVERRIDES = PAGE.one("bash", "openapi-python-client"), PAGE.one("yaml", "content_type_overrides")
PYTHON_TOOLS = ("openapi-python-client==0.29.1", "mypy==2.4.1", "types-python-dateutil")


def missing(reason: str) -> NoReturn:
    """Fail where the tools have to be there, else skip."""
    if os.environ.get("CI_TOOLS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; returns what it printed."""
    env = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
    env.pop("VIRTUAL_ENV", None)
    ran = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}"
    return ran.stdout


def test_the_documentation_names_the_versions_that_are_tested() -> None:
    npm = json.loads((HERE / "package.json").read_text("utf-8"))["devDependencies"]
    assert f"@hey-api/openapi-ts@{npm['@hey-api/openapi-ts']} " in COMMANDS
    assert f"uvx {PYTHON_TOOLS[0].replace('==', '@')} generate " in COMMANDS
    assert (HERE / "python-client.yaml").read_text("utf-8").endswith(OVERRIDES)


@pytest.fixture(scope="module")
def node_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the Node tools of `package-lock.json`."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        missing("Node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for path in HERE.glob("*.json"):
        shutil.copy(path, folder)
    try:
        run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        missing(f"npm could not install the packages: {str(error)[-500:]}")
    return folder


@pytest.fixture(scope="module")
def python_tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The beginning of a command in an environment with the Python tools, whose packages do not go with ours."""
    uv = shutil.which("uv") or shutil.which(ROOT / ".uv/bin/uv")
    if uv is None:
        missing("uv is not installed")
    packages = [word for tool in PYTHON_TOOLS for word in ("--with", tool)]
    tools = (uv, "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable, *packages)
    try:
        run(*tools, "openapi-python-client", "--version", cwd=tmp_path_factory.mktemp("uv"))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        missing(f"uv could not install the packages: {str(error)[-500:]}")
    return tools


class RealClock(Clock):
    def __call__(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
def clock() -> Clock:
    """The clients wait in real time, so the gateway's time has to pass too."""
    return RealClock()


@dataclass
class Served:
    url: str
    folder: Path
    operations: int

    def contents(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


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


async def test_the_document_keeps_the_rules_of_redocly(served: Served, node_tools: Path) -> None:
    redocly = node_tools / "node_modules/.bin/redocly"
    command = (redocly, "lint", "--config", HERE / "redocly.yaml", "openapi.json")
    said = await asyncio.to_thread(run, *command, cwd=served.folder)
    assert "warning" not in said, said


async def test_a_python_client_makes_a_video(served: Served, python_tools: tuple[str, ...]) -> None:
    generate = ("openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none", "--fail-on-warning")
    config = ("--config", str(HERE / "python-client.yaml"), "--output-path", "client")
    said = await asyncio.to_thread(run, *python_tools, *generate, *config, cwd=served.folder)
    assert "WARNING" not in said, said
    modules = [path for path in (served.folder / "client/api").glob("*/*.py") if path.name != "__init__.py"]
    assert len(modules) == served.operations

    shutil.copy(HERE / "make_video.py", served.folder)
    # The generator's own `client.py` is not strict.
    typed = (
        *python_tools,
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "make_video.py",
        "client/api",
        "client/models",
    )
    await asyncio.to_thread(run, *typed, cwd=served.folder)
    made = await asyncio.to_thread(
        run, *python_tools, "python", "make_video.py", served.url, ALICE, "python.mp4", cwd=served.folder
    )
    assert made == "not_found\n"
    assert served.contents("python.mp4")[4:8] == b"ftyp"


async def test_a_typescript_client_makes_a_video(served: Served, node_tools: Path) -> None:
    programs = node_tools / "node_modules/.bin"
    generate = (programs / "openapi-ts", "--input", served.folder / "openapi.json", "--output", "client")
    said = await asyncio.to_thread(run, *generate, "--client", "@hey-api/client-fetch", cwd=node_tools)
    assert "warn" not in said.lower(), said
    code = (node_tools / "client/sdk.gen.ts").read_text()
    assert code.count("\nexport const ") == served.operations

    shutil.copy(HERE / "make_video.ts", node_tools)
    await asyncio.to_thread(run, programs / "tsc", cwd=node_tools)
    target = served.folder / "node.mp4"
    made = await asyncio.to_thread(run, "node", "built/make_video.js", ALICE, target, cwd=node_tools)
    assert made == "not_found true\n"
    assert served.contents("node.mp4")[4:8] == b"ftyp"
