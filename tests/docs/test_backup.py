"""The commands of docs/backup.md and docs/upgrading.md."""

import os
from pathlib import Path
from typing import Any

import pages
import psycopg
import pytest
from commands import Command
from harness import scratch_database
from programs import TOOLS_PATH

from app.db import embedded

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/backup.md")
BACKUP, READ = PAGE.one("sh", "backup /var"), PAGE.one("sh", "sha256sum --check")
MEDIA, MARK = PAGE.one("sh", "-cf media.tar"), PAGE.one("sh", "video-gateway restored")
REHEARSAL, MOVE = PAGE.one("sh", "/tmp/rehearsal"), PAGE.one("sh", "NEW_DATABASE_URL")
UPGRADE = pages.read("docs/upgrading.md").one("sh", "video-gateway migrate")


@pytest.fixture
def path() -> str:
    """PATH with the programs of the embedded server, which are those of the newest version."""
    return os.pathsep.join([*map(str, sorted(embedded.program_folders(), reverse=True)), TOOLS_PATH])


async def test_a_backup_is_made_and_read_and_restored_as_a_rehearsal(
    command: Command, database_url: str, home: Path, path: str
) -> None:
    assert (await command("projects", "create", "web shop")).code == 0
    (home / "data" / "media").mkdir(parents=True)
    settings: dict[str, Any] = {"GATEWAY_DATA_DIR": str(home / "data"), "PATH": path}
    await pages.shell(
        BACKUP.replace("/var/backups", str(home)),
        folder=home,
        **settings,
        GATEWAY_DATABASE_URL=database_url,
        GATEWAY_PEPPER="test pepper",
    )
    listed = await pages.shell(READ, folder=home, PATH=path)
    assert "database.dump: OK" in listed
    assert "TABLE DATA public videos" in listed
    assert "media/" in await pages.shell(f"{MEDIA}tar -tf media.tar", folder=home, **settings)
    printed = await pages.shell(REHEARSAL.replace("/tmp/rehearsal", str(home / "rehearsal")), folder=home, PATH=path)
    assert "Restored: 1 project, 0 keys, 0 videos" in printed
    assert " web shop " in printed
    assert not (home / "rehearsal").exists()


async def test_the_embedded_database_moves_to_a_server(postgres: str, home: Path, path: str) -> None:
    settings = {"GATEWAY_DATA_DIR": str(home / "data"), "PATH": path}
    await pages.run("video-gateway", "projects", "create", "web shop", folder=home, **settings)
    async with scratch_database(postgres) as url:
        printed = await pages.shell(MOVE, folder=home, NEW_DATABASE_URL=url, **settings)
        assert "Restored: 1 project" in printed
        async with await psycopg.AsyncConnection.connect(url) as connection:
            assert await (await connection.execute("select name from projects")).fetchall() == [("web shop",)]


async def test_a_database_is_migrated_and_marked(postgres: str, home: Path, path: str) -> None:
    async with scratch_database(postgres) as url:
        settings = {"GATEWAY_DATABASE_URL": url, "GATEWAY_DATA_DIR": str(home), "PATH": path}
        printed = await pages.shell(UPGRADE.replace("doctor", "doctor || true") + MARK, folder=home, **settings)
    assert "The database is now at " in printed
    assert "No submit was waiting or under way." in printed
