"""The Dockerfile, docker-compose.yml and the units of systemd, as far as that needs no engine: read, and their commands
run."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.server import serve
from programs import need
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.settings import Settings

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
OURS = ("migrate", "gateway", "worker")
UNITS = sorted((ROOT / "deploy").glob("*.service"))


def test_what_is_built_is_pinned() -> None:
    assert re.findall(r"pip install (\S+)", DOCKERFILE) == ["uv==0.13.9"]
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) == ["${PYTHON_IMAGE}"] * 2
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.M)
    for image in (python, SERVICES["postgres"]["image"]):
        assert re.fullmatch(r"\w+:[\d.]+(-slim)?-trixie", image), "a version and the Debian"
    assert "UV_PYTHON=/usr/local/bin/python" + re.findall(r"python:([\d.]+)", python)[0] in DOCKERFILE


def test_the_image_can_back_up_the_database_beside_it() -> None:
    (client,) = re.findall(r"postgresql-client-(\d+)", DOCKERFILE)
    (server,) = re.findall(r"postgres:(\d+)", SERVICES["postgres"]["image"])
    assert int(client) >= int(server)


def test_a_container_without_a_volume_gets_none_in_silence() -> None:
    assert not re.search(r"^VOLUME", DOCKERFILE, re.M)


def test_only_the_server_is_published_and_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["${PUBLISH_ADDRESS:-127.0.0.1}:${GATEWAY_PORT:-8080}:8080"]}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_limited(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == "1g"
    assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}
    if name in OURS:
        assert service["read_only"]
        assert {volume.rpartition(":")[2] for volume in service["volumes"]} == {"/data", "/tmp"}
        known = {f"GATEWAY_{field.upper()}" for field in Settings.model_fields} | {"PGPASSWORD"}
        assert service["environment"].keys() <= known, "an unknown name is an error in strict mode"


async def test_the_health_checks_ask_for_healthz() -> None:
    """That of the image, which the server uses, and that of a worker, at the port that its settings name."""
    found: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(Request(scope).url.path)
        await JSONResponse({}, status_code=200 if len(found) % 2 else 503)(scope, receive, send)

    (image,) = re.findall(r'HEALTHCHECK .* CMD \["python", "-c", "(.+)"\]', DOCKERFILE)
    worker = SERVICES["worker"]
    port = worker["environment"]["GATEWAY_WORKER_METRICS_PORT"]
    *_, script = worker["healthcheck"]["test"]
    assert script.count(port) == 1
    async with serve(app) as url:
        here = url.rpartition(":")[2]
        for check in (image, script.replace(port, here)):
            codes = [await _code(check, GATEWAY_PORT=here) for _ in range(2)]
            assert codes == [0, 1], check
    assert found == ["/healthz"] * 4


async def _code(script: str, **env: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=env)
    return await process.wait()


def test_the_units_differ_in_their_command_only() -> None:
    server, worker = (unit.read_text("utf-8") for unit in reversed(UNITS))
    lines = [{line for line in unit.splitlines() if "=" in line and line[0] != "#"} for unit in (server, worker)]
    names = {line.partition("=")[0] for line in lines[0] ^ lines[1]}
    assert names == {"Description", "After", "ExecStart", "Environment"}
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", server, re.M)
    assert int(seconds) > Settings.model_fields["shutdown_grace_s"].default


async def test_systemd_has_no_complaint_about_the_units(tmp_path: Path) -> None:
    analyze = need("systemd-analyze")
    copies = [tmp_path / unit.name.replace("@", "@1") for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):  # the program need not be installed under its name
        copy.write_text(unit.read_text("utf-8").replace("/usr/local/bin/video-gateway", sys.executable), "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(analyze, "verify", *map(str, copies)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    ours = [line for line in printed.decode().splitlines() if "video-gateway" in line]
    assert (process.returncode, ours) == (0, [])
