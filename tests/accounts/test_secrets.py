"""The server's own secrets on disk."""

import os
from pathlib import Path

import pytest

from app.accounts import secrets
from app.settings import load

pytestmark = pytest.mark.anyio


def test_what_another_container_is_just_writing_is_left_alone(tmp_path: Path) -> None:
    """On one volume at the first start; the other one thinks that it is this process."""
    settings = load(_env_file=None, data_dir=tmp_path)
    settings.secrets_dir.mkdir()
    theirs = settings.secrets_dir / f"api-key.{os.getpid()}"
    theirs.write_text("theirs")
    key, path = secrets.first_key(settings)
    assert (key, theirs.read_text()) == (path.read_text(), "theirs")
    assert sorted(settings.secrets_dir.iterdir()) == [path, theirs]
