"""Fixtures of the tests that run the documentation: real time, a gateway that listens, JavaScript packages."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pages
import pytest
from commands import command, logging_as_before
from docs.listening import Listening
from fakes.server import serve
from harness import Clock, StartGateway

__all__ = ["command", "logging_as_before"]


class RealClock(Clock):
    def __call__(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
def clock() -> Clock:
    return RealClock()


@pytest.fixture
async def listening(start_gateway: StartGateway, tmp_path: Path) -> AsyncIterator[Listening]:
    """A gateway with the sandbox under the names of the documentation's models."""
    card = {"routes": ["sandbox/testcard"]}
    folder = tmp_path / "pasted"
    folder.mkdir()
    async with (
        start_gateway(
            run_worker=True,
            worker_tick_s=0.02,
            providers={"sandbox": {"testcard_s": 0, "poll_interval_s": 0.05}},
            models=dict.fromkeys(("sora-2", "seedance-2", "google/veo-3.0-generate-preview"), card),
        ) as gateway,
        serve(gateway.app) as url,
    ):
        yield Listening(gateway, url, folder)


@pytest.fixture(scope="session")
async def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of tests/clients/package-lock.json, installed once for all processes of a test run."""
    for program in ("node", "npm"):
        pages.need(program)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "clients"
    with (shared / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            folder.mkdir(exist_ok=True)
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(pages.ROOT / "tests" / "clients" / name, folder)
            install = ("npm", "ci", "--no-audit", "--no-fund")
            await pages.run(*install, folder=folder, **os.environ)  # npm's own settings
            (folder / "installed").touch()
    return folder / "node_modules"


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh directory that the embedded PostgreSQL can get at when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="video-gateway-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()
