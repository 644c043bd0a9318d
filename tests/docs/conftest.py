"""Fixtures of the tests that run the documentation: real time, a gateway that listens, JavaScript packages."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from commands import command, logging_as_before
from docs.listening import Listening
from fakes.server import serve
from harness import Clock, RealClock, StartGateway

__all__ = ["command", "logging_as_before"]


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


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh directory that the embedded PostgreSQL can get at when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="video-gateway-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()
