"""`backup` and `restore` on databases of a server: refusals, broken files, versions, and what is left after a kill."""

import asyncio
import contextlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from alembic import command as alembic
from commands import Command, Done
from harness import scratch_database, sqlalchemy_url
from processes import running, until

from app.cli.archive import Manifest
from app.db import embedded
from app.db.migrate import alembic_config, newest_revision
from app.db.programs import find_program
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

PEPPER = "test pepper"
"""That of the fixture `command`."""


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The address of an empty database."""
    async with scratch_database(postgres) as url:
        yield url


@pytest.fixture
async def made(command: Command, tmp_path: Path) -> Path:
    """The backup of a database with one project and one key."""
    assert (await command("keys", "create", "web shop")).code == 0
    path = tmp_path / "gateway.backup"
    done = await command("backup", str(path))
    assert done.code == 0, done.err
    return path


async def why(command: Command, *arguments: str, **settings: Any) -> str:
    """The message of a command that is refused."""
    with pytest.raises(ConfigurationError) as error:
        await command(*arguments, **settings)
    return str(error.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def found(folder: Path, pattern: str) -> list[str]:
    return [path.name for path in folder.glob(pattern)]


def damage(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Change a file. Returns what was in it."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    return before


async def rows(url: str, query: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def names(url: str) -> list[str]:
    """The keys of a database; none of an empty one."""
    if (await rows(url, "select to_regclass('keys') is null"))[0][0]:
        return []
    return [name for (name,) in await rows(url, "select name from keys order by name")]


def parts(path: Path) -> dict[str, bytes]:
    """The parts of a backup, read by another reader of tar archives."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]  # files


def write(path: Path, content: dict[str, bytes]) -> Path:
    """Write a backup with these parts and the right check sums, by another writer of tar archives."""
    sums = "".join(f"{sha256(part).hexdigest()}  {name}\n" for name, part in content.items() if name != "SHA256SUMS")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, part in {**content, "SHA256SUMS": sums.encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))
    return path


def changed(made: Path, **fields: Any) -> Path:
    """The backup with other fields in its manifest."""
    content = parts(made)
    manifest = Manifest.model_validate_json(content["manifest.json"]).model_dump() | fields
    content["manifest.json"] = Manifest.model_construct(**manifest).model_dump_json(warnings=False).encode()
    return write(made.with_name("changed.backup"), content)


# The file


async def test_a_backup_is_one_private_file_that_standard_tools_can_read(made: Path, tmp_path: Path) -> None:
    assert mode(made) == 0o600
    assert found(tmp_path, "*.part") == []
    content = parts(made)
    assert list(content) == ["manifest.json", "secrets/pepper", "database.dump", "SHA256SUMS"]
    assert content["SHA256SUMS"].decode().splitlines() == [
        f"{sha256(part).hexdigest()}  {name}" for name, part in content.items() if name != "SHA256SUMS"
    ]
    assert content["secrets/pepper"].decode() == PEPPER
    assert content["database.dump"].startswith(b"PGDMP")
    manifest = Manifest.model_validate_json(content["manifest.json"])
    assert (manifest.counts["keys"], manifest.pepper, manifest.revision) == (1, "setting", newest_revision())
    assert manifest.files == str(tmp_path / "data" / "media")


async def test_a_file_is_replaced_only_on_demand(command: Command, made: Path) -> None:
    before = damage(made, lambda whole: whole)
    refused = await why(command, "backup", str(made))
    assert refused.startswith(f"{made} exists already")
    assert damage(made, lambda whole: whole) == before
    part = made.with_name("gateway.backup.part")
    part.touch()
    refused = await why(command, "backup", str(made), "--force")
    assert "another backup is being written, or one was killed" in refused
    part.unlink()
    assert (await command("backup", str(made), "--force")).code == 0
    assert damage(made, lambda whole: whole) != before
    os.mkfifo(made.with_name("pipe"))
    for special in (made.with_name("pipe"), made.parent):
        refused = await why(command, "backup", str(special), "--force")
        assert refused == f"{special} is a directory or a device; name a file in it, or - for standard output"
    refused = await why(command, "backup", str(made.parent / "no" / "such"))
    assert refused == f"{made.parent}/no/such.part: no such file or directory"


async def test_a_program_gets_no_password_in_its_arguments(
    command: Command, database_url: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = made.with_name("seen")
    wrap("pg_dump", made.parent / "bin", f'echo "$@" > {seen}; env >> {seen}; exec "$real" "$@"', monkeypatch)
    url = f"{database_url}{'&' if '?' in database_url else '?'}password=s3cret%20word"
    done = await command("backup", str(made), "--force", database_url=url, admin_key="an admin key of the tests")
    assert done.code == 0, done.err
    arguments, *environment = seen.read_text().splitlines()
    assert "s3cret" not in arguments
    assert "PGPASSWORD=s3cret word" in environment
    assert [line for line in environment if "admin key" in line] == []


async def test_a_backup_needs_a_program_that_is_new_enough(command: Command, made: Path, empty: str) -> None:
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 99.1 needs pg_dump 99 or newer, and the newest here is"):
        await find_program("pg_dump", 99, "PostgreSQL 99.1")
    refused = await why(command, "restore", str(changed(made, pg_dump=99)), "--yes", database_url=empty)
    assert "the backup needs pg_restore 99 or newer" in refused
    assert "the package postgresql-client-99" in refused


async def test_a_beta_is_a_version_and_the_wrapper_of_debian_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapper may answer with one version and run another."""
    beta, debian = tmp_path / "beta" / "pg_dump", tmp_path / "bin" / "pg_dump"
    wrapper = tmp_path / "share" / "pg_wrapper"
    for program, version in ((beta, "98beta1"), (wrapper, "97.2")):
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    debian.parent.mkdir()
    debian.symlink_to(wrapper)
    monkeypatch.setenv("PATH", f"{debian.parent}:{beta.parent}:{os.environ['PATH']}")
    found = await find_program("pg_dump", 97, "PostgreSQL 97.2")
    assert (found.path, found.major) == (beta, 98)


async def test_only_the_secrets_of_the_gateway_are_kept(command: Command, made: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "data" / "secrets"
    secrets.mkdir(parents=True)
    for name in ("api-key", "pepper_old", "notes"):
        (secrets / name).write_text(f"the {name}\n")
    assert (await command("backup", str(made), "--force")).code == 0
    names = [name for name in parts(made) if name.startswith("secrets/")]
    assert names == ["secrets/api-key", "secrets/pepper"]


async def test_a_backup_is_not_made_with_another_pepper(command: Command, made: Path, tmp_path: Path) -> None:
    """Its keys and links would be dead after a restore, and there might be no other copy."""
    refused = await why(command, "backup", str(made), "--force", pepper="another pepper")
    assert "GATEWAY_PEPPER is not the one that this database's keys were made with" in refused
    refused = await why(command, "backup", str(made), "--force", pepper=None, data_dir=tmp_path / "elsewhere")
    assert "was set up with another pepper, and there is none here" in refused
    assert not (tmp_path / "elsewhere").exists()


async def test_a_failing_program_leaves_no_file(command: Command, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrap("pg_dump", made.parent / "bin", 'echo PGDMP; echo "pg_dump: error: it is broken" >&2; exit 1', monkeypatch)
    refused = await why(command, "backup", str(made.parent / "second"))
    assert refused.endswith("failed: pg_dump: error: it is broken")
    assert found(made.parent, "second*") == []


async def test_a_database_that_was_never_used_is_not_made_for_a_backup(command: Command, passable: Path) -> None:
    refused = await why(command, "backup", "x", database_url=None, data_dir=passable / "none")
    assert refused.startswith(f"there is no database in {passable}/none yet")
    assert found(passable, "*") == []


# Restoring


async def test_a_backup_is_restored_into_an_empty_database(
    command: Command, made: Path, empty: str, tmp_path: Path
) -> None:
    place = {"database_url": empty, "data_dir": tmp_path / "other", "pepper": None}
    asked = await command("restore", str(made), **place)  # there is no terminal that could say yes
    assert f"{made}: 1 project, 1 key, 0 videos, as of" in asked.err
    assert await names(empty) == []
    done = await command("restore", str(made), "--yes", **place)
    assert done.code == 0, done.err
    assert f"Written: {tmp_path}/other/secrets/pepper" in done.out
    assert (tmp_path / "other" / "secrets" / "pepper").read_text() == PEPPER
    assert mode(tmp_path / "other" / "secrets" / "pepper") == 0o600
    assert await names(empty) == ["web shop"]
    made_key = await command("keys", "create", "second", **place)
    assert made_key.code == 0, "the pepper is the one of the restored database"
    (entry,) = (await command("audit", "--json", "--action", "database.restore", **place)).document["entries"]
    assert entry["after"]["unknown_submits"] == 0


async def test_rows_of_any_length_and_content_are_restored(
    command: Command, database_url: str, empty: str, tmp_path: Path
) -> None:
    """Longer than what is read at once, and with what looks like the end of a table or a statement."""
    odd = ["x" * 700_000, "a\n\\.\nb", "\\.", "COPY public.keys (id) FROM stdin;\n", "\\restrict x\ny", "\t\\N'\""]
    insert = "insert into projects (id, name, billing, created_at) values (%s, %s, 'postpaid', now())"
    async with await psycopg.AsyncConnection.connect(database_url) as connection, connection.cursor() as cursor:
        await cursor.executemany(insert, [(f"p{number}", name) for number, name in enumerate(odd)])
    path = str(tmp_path / "odd.backup")
    assert (await command("backup", path)).code == 0
    assert (await command("restore", path, "--yes", database_url=empty)).code == 0
    assert [name for (name,) in await rows(empty, "select name from projects order by id")] == odd


async def test_what_is_in_a_database_is_replaced_only_on_demand(
    command: Command, made: Path, empty: str, tmp_path: Path
) -> None:
    place = {"database_url": empty}
    assert (await command("restore", str(made), "--yes", **place)).code == 0
    await command("keys", "create", "later", **place)
    refused = await why(command, "restore", str(made), "--yes", **place)
    assert "is in use" in refused
    assert "--replace" in refused
    assert await names(empty) == ["later", "web shop"]
    assert (await command("restore", str(made), "--yes", "--replace", **place)).code == 0
    assert await names(empty) == ["web shop"]
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute("create table other_program (id int)")
    refused = await why(command, "restore", str(made), "--yes", "--replace", **place)
    assert "has tables that neither the backup nor this release knows: other_program" in refused


async def test_what_others_have_in_the_database_is_not_touched(command: Command, made: Path, empty: str) -> None:
    """Views of the tables, and tables of extensions."""
    assert (await command("restore", str(made), "--yes", database_url=empty)).code == 0
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        for statement in (
            "create table of_extension (id int)",
            "alter extension plpgsql add table of_extension",
            "create schema reports",
            "create view reports.daily as select id from videos",
        ):
            await connection.execute(statement.encode())
        again = ("restore", str(made), "--yes", "--replace")
        refused = await why(command, *again, database_url=empty)
        assert "nothing was changed. Something else uses the gateway's tables: view reports.daily depends" in refused
        await connection.execute("drop view reports.daily")
        assert (await command(*again, database_url=empty)).code == 0
    assert await rows(empty, "select to_regclass('of_extension') is not null") == [(True,)]


async def test_a_role_needs_no_more_than_the_right_to_create(command: Command, made: Path, empty: str) -> None:
    role = f"limited_{empty.partition('test_')[2][:16]}"
    place = {"database_url": f"{empty}{'&' if '?' in empty else '?'}options=-crole%3D{role}"}
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute(f"create role {role}".encode())
        await connection.execute("revoke create on schema public from public")
        try:
            refused = await why(command, "restore", str(made), "--yes", **place)
            assert "permission denied for schema public. Restore as the role that owns the tables" in refused
            await connection.execute(f"grant create on schema public to {role}".encode())
            done = await command("restore", str(made), "--yes", **place)
            assert done.code == 0, done.err
            assert await names(empty) == ["web shop"]
        finally:
            await connection.execute(f"drop owned by {role}".encode())
            await connection.execute(f"drop role {role}".encode())


async def test_a_migrated_database_without_anything_in_it_counts_as_empty(
    command: Command, made: Path, empty: str
) -> None:
    assert (await command("migrate", database_url=empty)).code == 0
    assert (await command("restore", str(made), "--yes", database_url=empty)).code == 0
    assert await names(empty) == ["web shop"]


async def test_a_backup_of_an_older_release_is_upgraded(
    command: Command, empty: str, postgres: str, tmp_path: Path
) -> None:
    async with scratch_database(postgres) as old:
        await asyncio.to_thread(alembic.upgrade, alembic_config(sqlalchemy_url(old)), "0012")
        async with await psycopg.AsyncConnection.connect(old, autocommit=True) as connection:
            project = "insert into projects (id, name, billing, created_at) values ('a', 'old', 'prepaid', now())"
            await connection.execute(project.encode())
        path = tmp_path / "old.backup"
        assert (await command("backup", str(path), database_url=old)).code == 0
    done = await command("restore", str(path), "--yes", database_url=empty)
    assert done.code == 0, done.err
    assert await rows(empty, "select version_num from alembic_version") == [(newest_revision(),)]
    actions = await rows(empty, "select action from audit order by id")
    assert actions == [("schema.migrate",), ("database.restore",)]
    assert await rows(empty, "select name from projects") == [("old",)]


async def test_another_pepper_here_is_refused_with_the_next_step(
    command: Command, made: Path, empty: str, tmp_path: Path
) -> None:
    other = {"database_url": empty, "data_dir": tmp_path / "other"}
    refused = await why(command, "restore", str(made), "--yes", **other, pepper="another pepper")
    assert f"tar -xOf {made} secrets/pepper" in refused
    secrets = tmp_path / "other" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "pepper").write_text("a pepper of another database")
    refused = await why(command, "restore", str(made), "--yes", **other, pepper=None)
    assert f"mv {secrets}/pepper {secrets}/pepper.before" in refused
    assert await names(empty) == []
    # A pepper that is not the one of the dump, however it came into the backup.
    content = parts(made) | {"secrets/pepper": b"quite another pepper"}
    (secrets / "pepper").unlink()
    wrong = write(tmp_path / "wrong.backup", content)
    refused = await why(command, "restore", str(wrong), "--yes", **other, pepper=None)
    assert "GATEWAY_PEPPER is not the one that this database's keys were made with" in refused
    assert await names(empty) == []
    assert list(secrets.iterdir()) == []
    content = parts(made)
    half = write(
        tmp_path / "half.backup",
        {"manifest.json": content.pop("manifest.json"), "secrets/api-key": b"a key", **content, "secrets/pepper": b""},
    )
    assert f"{secrets}/pepper is empty" in await why(command, "restore", str(half), "--yes", **other, pepper=None)
    assert list(secrets.iterdir()) == []


async def test_a_running_gateway_is_not_replaced(command: Command, made: Path, empty: str) -> None:
    """Neither a process that is connected, nor a worker that was seen a moment ago."""
    assert (await command("restore", str(made), "--yes", database_url=empty)).code == 0
    again = ("restore", str(made), "--yes", "--replace")
    beat = "insert into workers values ('w', 'gpu-1', 7, '0.1.0', now(), now() - interval '20 s', null)"
    async with await psycopg.AsyncConnection.connect(
        empty, autocommit=True, application_name="video-gateway"
    ) as connection:
        for arguments in (again, ("restored", "--yes")):
            refused = await why(command, *arguments, database_url=empty)
            assert "the gateway runs: it has 1 connection(s) to this database, from this machine." in refused
        await connection.execute(beat.encode())
    refused = await why(command, *again, database_url=empty)
    assert "a worker was seen within the last 30 s: process 7 on gpu-1" in refused
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute("update workers set seen_at = now() - interval '1 min'")
        done = await command(*again, database_url=empty)  # psql and the like are no gateway
        assert done.code == 0, done.err


async def test_a_gateway_that_starts_while_a_restore_asks_is_noticed(
    command: Command, made: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as started:

        def start(*_: Any, **__: Any) -> bool:
            started.enter_context(psycopg.connect(empty, application_name="video-gateway"))
            return True

        monkeypatch.setattr(typer, "confirm", start)
        assert "the gateway runs" in await why(command, "restore", str(made), database_url=empty)
    assert await names(empty) == []


async def test_a_database_that_was_restored_by_other_means_is_marked(command: Command, made: Path, empty: str) -> None:
    assert (await command("restore", str(made), "--yes", database_url=empty)).code == 0
    assert (await command("restored", database_url=empty)).err.count("Continue?") == 1
    done = await command("restored", "--yes", database_url=empty)
    assert done.out.strip() == "- No submit was waiting or under way."
    (entry, _) = (await command("audit", "--json", "--action", "database.restore", database_url=empty)).document[
        "entries"
    ]
    assert entry["after"] == {"unknown_submits": 0}


async def test_tables_that_are_in_use_are_not_waited_for(command: Command, made: Path, empty: str) -> None:
    assert (await command("restore", str(made), "--yes", database_url=empty)).code == 0
    async with await psycopg.AsyncConnection.connect(empty) as connection:
        await connection.execute("select from videos")
        refused = await why(command, "restore", str(made), "--yes", "--replace", database_url=empty)
    assert "nothing was changed. Another connection uses the tables for more than 3 s" in refused
    assert await names(empty) == ["web shop"]


# Broken files


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, "/etc/passwd"
    return member.tobuf(tarfile.GNU_FORMAT)


def _swapped(whole: bytes) -> bytes:
    """One byte of the compressed rows is another."""
    middle = whole.index(b"PGDMP") + 60_000
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", "it ends early"),
    "cut in the manifest": (lambda whole: whole[:700], "it ends early"),
    "cut in the dump": (lambda whole: whole[: len(whole) // 2], "it ends early"),
    "cut before the check sums": (lambda whole: whole[: whole.index(b"SHA256SUMS")], "it ends early"),
    "damaged": (_swapped, ""),
    "another file": (lambda whole: whole[whole.index(b"PGDMP") :], "it is not a backup of video-gateway"),
    "a path above": (lambda whole: _header("../manifest.json", 9) + whole, "it is not a backup of video-gateway"),
    "a link": (lambda whole: _header("manifest.json", 0, tarfile.SYMTYPE) + whole, "it is not a backup"),
    "a huge manifest": (lambda whole: _header("manifest.json", 2**40) + whole, "its part manifest.json is too large"),
    "a huge extended header": (lambda whole: _header("x", 2**40, tarfile.XHDTYPE) + whole, "it is not a backup"),
    "a hostile secret": (
        lambda whole: whole.replace(_header_of(whole, "secrets/pepper"), _header("secrets/../../x", len(PEPPER))),
        "it has a part that is not a backup's",
    ),
}


def _header_of(whole: bytes, name: str) -> bytes:
    start = whole.index(name.encode())
    return whole[start : start + 512]


async def test_a_broken_file_changes_nothing(command: Command, made: Path, empty: str) -> None:
    assert (await command("restore", str(made), "--yes", database_url=empty)).code == 0
    await command("keys", "create", "later", database_url=empty)
    whole = damage(made, lambda whole: whole)
    for broken, (change, reason) in BROKEN.items():
        damage(made, lambda _, change=change: change(whole))  # type: ignore[misc]  # bound now
        refused = await why(command, "restore", str(made), "--yes", "--replace", database_url=empty)
        assert refused.startswith(f"{made} cannot be restored: "), broken
        assert reason in refused, broken
        assert await names(empty) == ["later", "web shop"], broken


async def test_a_newer_backup_names_the_release_that_it_needs(command: Command, made: Path, empty: str) -> None:
    newer = changed(made, revision="9999", release="7.0.0")
    refused = await why(command, "restore", str(newer), "--yes", database_url=empty)
    assert "video-gateway 7.0.0 made it, with the schema 9999; this release knows schemas up to" in refused
    refused = await why(command, "restore", str(changed(made, format=2)), "--yes", database_url=empty)
    assert "a newer release made it, in a format that this one cannot read" in refused
    refused = await why(command, "restore", str(changed(made, server="17\x1b[2J")), "--yes", database_url=empty)
    assert "its manifest is not a backup's" in refused
    lying = parts(changed(made, server="99beta1")) | {"database.dump": b"PGDMP but no dump"}
    refused = await why(command, "restore", str(write(made, lying)), "--yes", database_url=empty)
    assert "nothing was changed" in refused
    assert "It is from PostgreSQL 99beta1" in refused
    assert await names(empty) == []


async def test_a_row_without_end_takes_no_memory(
    command: Command, made: Path, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed, it would be small in the file. The program has more to say when it is stopped."""
    wrap("pg_restore", tmp_path / "bin", "exec tr '\\000' x < /dev/zero", monkeypatch)
    refused = await why(command, "restore", str(made), "--yes", database_url=empty)
    assert refused.endswith("nothing was changed. It has a row that is longer than any of a gateway.")
    assert await names(empty) == []


# Kills


def wrap(name: str, folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program before the real one, which it knows as `$real`."""
    server = max(embedded.program_folders())
    real = shutil.which(name) if os.environ.get("TEST_DATABASE_URL") else str(server / name)
    folder.mkdir()
    program = folder / name
    version = f'[ "$1" = --version ] && exec "{real}" --version\n'
    program.write_text(f"#!/bin/sh\nreal={real}\n{version}{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def test_a_kill_before_the_end_leaves_the_database_as_it_was(
    command: Command, made: Path, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are there and nothing is marked yet, in a transaction that is never committed."""
    place: dict[str, Any] = {"database_url": empty, "data_dir": tmp_path / "data", "pepper": PEPPER}
    assert (await command("restore", str(made), "--yes", **place)).code == 0
    await command("keys", "create", "later", **place)
    loaded = tmp_path / "loaded"
    wrap("pg_restore", tmp_path / "bin", f'"$real" "$@"; touch {loaded}; exec sleep 600', monkeypatch)
    async with running("restore", str(made), "--yes", "--replace", cwd=tmp_path, environment={}, **place) as child:

        async def done() -> bool | None:
            return loaded.exists() or None

        await until(done)
        child.kill()
        assert await child.end() == -9
    assert await names(empty) == ["later", "web shop"]
    monkeypatch.undo()
    again: Done = await command("restore", str(made), "--yes", "--replace", **place)
    assert again.code == 0, again.err
    assert await names(empty) == ["web shop"]
