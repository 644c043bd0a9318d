"""Fixtures of the tests of the command line."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import command, logging_as_before

__all__ = ["command", "logging_as_before"]


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that other users may pass through, as the embedded database's user must."""
    with tempfile.TemporaryDirectory(prefix="video-gateway-") as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()
