"""`video-gateway doctor`: a sound installation passes, and each fault is named with its next step."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import Command
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.bucket import open_bucket
from fakes.openai import FakeOpenAI
from fakes.pooler import pooler
from fakes.server import Answer, Hang, closed_port, serve, serve_bytes
from harness import ALICE, scratch_database
from processes import provider, served

from app.jobs.presence import RELEASE

pytestmark = pytest.mark.anyio

ORDER = [
    *("settings", "secrets", "database", "schema", "clock", "pepper", "notices", "pooler", "store", "ffmpeg", "models"),
    *("provider up", "public URL", "workers", "API keys"),
]
PEPPER = "a pepper that is long enough"


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@pytest.mark.slow
async def test_a_sound_installation_passes_and_nothing_is_left_behind(
    fake: FakeOpenAI, command: Command, database_url: str, tmp_path: Path
) -> None:
    address = closed_port()
    port = address.rpartition(":")[2]
    async with serve(fake) as url:
        values: dict[str, Any] = {"database_url": database_url, "data_dir": tmp_path / "data", "pepper": PEPPER}
        values |= {"api_keys": ALICE, "public_url": address, "port": port, **provider(url)}
        async with served("--port", port, cwd=tmp_path, **values):
            printed = await command("doctor", "--strict", **values)
            found = await command("doctor", "--json", "--strict", **values)
    assert list(found.checks) == ORDER
    assert [check["status"] for check in found.document["checks"]] == ["ok"] * len(ORDER), found.out
    assert (found.code, found.document["ok"], found.err) == (0, True, "")
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(ORDER) + ["In"]
    assert lines[-1] == "In all: 15 ok, 0 warning, 0 failed, 0 skipped."
    assert (printed.code, printed.err) == (0, "")
    assert fake.submits == []
    assert [path for path in (tmp_path / "data" / "media").rglob("*") if path.is_file()] == []


# Settings


async def test_settings_that_cannot_be_used_end_the_examination(command: Command) -> None:
    found = await command("doctor", "--json", port="x", log_level="loud")
    assert found.code == 1
    assert {check["text"].partition(":")[0] for check in found.checks["settings"]} == {
        "GATEWAY_PORT",
        "GATEWAY_LOG_LEVEL",
    }
    others = [check["status"] for name, checks in found.checks.items() if name != "settings" for check in checks]
    assert set(others) == {"skipped"}


async def test_the_origins_and_the_mistakes_of_settings_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=8081\n")
    (tmp_path / "gateway.toml").write_text("""
default_model = "gone"
[models.lost]
routes = ["lumen/seedance-2"]
[models.half]
routes = ["sandbox/testcard", "nope/x"]
[prices]
"nope/x" = 1
[providers.lunos]
timeout_s = 5
""")
    found = await command("doctor", "--json", databse_url="x", api_keys="short", log_level="error")
    assert found.code == 1, "the default model leads nowhere"
    assert found.one("settings", "ok").startswith("10 set, from .env and gateway.toml")
    assert found.one("settings", "warning") == (
        "GATEWAY_DATABSE_URL is not a setting -> did you mean GATEWAY_DATABASE_URL?"
    )
    assert [check["text"].partition(":")[0] for check in found.checks["secrets"]] == [
        "GATEWAY_PEPPER",
        "GATEWAY_API_KEYS",
    ]
    warnings = [check["text"] for check in found.checks["models"] if check["status"] == "warning"]
    assert [text.partition(",")[0] for text in warnings] == [
        "provider left out: provider lunos",
        "alias left out: alias lost",
        "routes left out: alias half",
        "price without use: price nope/x",
        "no vendor is configured: only the sandbox makes videos",
    ]
    assert "GATEWAY_PROVIDERS__LUNOS__API_KEY" in warnings[0]
    assert "GATEWAY_DEFAULT_MODEL: the model 'gone' does not exist" in found.one("models", "failed")
    (tmp_path / "gateway.toml").unlink()
    assert (await command("doctor", "--json", databse_url="x")).code == 0
    assert (await command("doctor", "--json", "--strict", databse_url="x")).code == 1


async def test_a_provider_that_cannot_be_built_is_a_failure(command: Command) -> None:
    found = await command("doctor", "--json", providers__lumen__api_key="x", providers__lumen__timeout_s="soon")
    assert found.one("models", "failed").startswith("GATEWAY_PROVIDERS__LUMEN__TIMEOUT_S: expected seconds")


# Database


async def test_an_embedded_database_that_was_never_made_is_not_made(command: Command, tmp_path: Path) -> None:
    found = await command("doctor", "--json", database_url=None)
    assert found.code == 0
    assert "video-gateway serve makes it" in found.one("database", "skipped")
    assert not (tmp_path / "data").exists()


async def test_an_embedded_database_is_started_and_stopped(command: Command, passable: Path) -> None:
    settings: dict[str, Any] = {"database_url": None, "data_dir": passable / "data"}
    assert (await command("migrate", **settings)).code == 0
    found = await command("doctor", "--json", **settings)
    assert found.code == 0
    assert f"embedded, in {passable / 'data'}, takes writes" in found.one("database", "ok")
    assert found.one("schema", "ok")
    assert "the first start of the server makes one" in found.one("API keys", "skipped")
    assert not (passable / "data" / "postgres" / "postmaster.pid").exists()
    assert not (passable / "data" / "secrets").exists()


async def test_a_database_that_is_away_or_takes_no_writes(command: Command, database_url: str) -> None:
    port = closed_port().rpartition(":")[2]
    away = await command("doctor", "--json", database_url=f"postgresql://me:sekret-word@127.0.0.1:{port}/db")
    assert away.one("database", "failed").startswith("the database cannot be reached (connection failed")
    assert away.one("database", "failed").endswith("start PostgreSQL, or correct GATEWAY_DATABASE_URL")
    assert "sekret" not in away.out
    for name in ("schema", "clock", "pepper", "notices", "pooler", "workers", "API keys"):
        assert [check["status"] for check in away.checks[name]] == ["skipped"], name
    missing = await command("doctor", "--json", database_url=with_option(database_url, "dbname=no_such"))
    assert missing.one("database", "failed").startswith("the database refuses the login")
    read_only = with_option(database_url, "options=-cdefault_transaction_read_only%3Don")
    standby = await command("doctor", "--json", database_url=read_only)
    assert "the database is read-only" in standby.one("database", "failed")
    assert {away.code, missing.code, standby.code} == {1}


async def test_a_schema_that_is_missing_or_too_new_is_not_migrated(command: Command, postgres: str) -> None:
    async with scratch_database(postgres) as url:
        empty = await command("doctor", "--json", database_url=url)
        assert empty.code == 1
        assert "is empty, this release needs" in empty.one("schema", "failed")
        assert empty.one("schema", "failed").endswith("-> video-gateway migrate")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            cursor = await connection.execute(b"select count(*) from pg_tables where schemaname = 'public'")
            assert await cursor.fetchone() == (0,)
            await connection.execute(b"create table alembic_version (version_num varchar(32))")
            await connection.execute(b"insert into alembic_version values ('9999')")
        newer = await command("doctor", "--json", database_url=url)
        assert newer.one("schema", "failed").endswith("which is newer than this release -> update video-gateway")


async def test_a_clock_that_differs_from_the_databases_is_a_warning(command: Command, postgres: str) -> None:
    async with scratch_database(postgres) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(
                b"create function clock_timestamp() returns timestamptz language sql "
                b"as $$ select pg_catalog.clock_timestamp() - interval '1 hour' $$"
            )
        slow = with_option(url, "options=-csearch_path%3Dpublic,pg_catalog")
        found = await command("doctor", "--json", database_url=slow)
    assert found.one("clock", "warning").startswith("this machine is 3600 s ahead of the database -> set both by NTP")


async def test_another_pepper_is_a_failure_and_none_is_made(command: Command, tmp_path: Path) -> None:
    first = await command("doctor", "--json")
    assert "the first server writes it" in first.one("pepper", "skipped")
    await command("keys", "create", "x")
    assert (await command("doctor", "--json")).one("pepper", "ok")
    found = await command("doctor", "--json", pepper="another pepper of that length")
    assert found.code == 1
    assert "is not the one that this database's keys were made with" in found.one("pepper", "failed")
    none = await command("doctor", "--json", pepper=None)
    assert "there is none here" in none.one("pepper", "failed")
    assert not (tmp_path / "data").exists()


async def test_a_pooler_in_transaction_mode_is_found(command: Command, database_url: str) -> None:
    async with pooler(database_url) as pooled:
        found = await command("doctor", "--json", database_url=pooled)
        right = {"database_url": pooled, "database_listen_url": database_url, "database_prepare": "false"}
        mended = await command("doctor", "--json", **right)
    assert found.one("pooler", "warning").endswith("-> set GATEWAY_DATABASE_PREPARE=false")
    assert "set GATEWAY_DATABASE_LISTEN_URL" in found.one("notices", "warning")
    assert found.code == 0
    assert "as it should be" in mended.one("pooler", "ok")
    assert mended.one("notices", "ok")


async def test_notices_of_another_database_do_not_arrive(command: Command, postgres: str) -> None:
    found = await command("doctor", "--json", database_listen_url=postgres)
    assert "must lead to the same database" in found.one("notices", "warning")
    away = await command("doctor", "--json", database_listen_url=f"postgresql://{closed_port()[7:]}/x")
    assert away.one("notices", "failed").endswith("or correct GATEWAY_DATABASE_LISTEN_URL")


async def test_workers_are_counted_and_their_releases_compared(command: Command, database_url: str) -> None:
    none = await command("doctor", "--json", run_worker="false")
    assert none.one("workers", "failed") == "none runs: no video is made -> start one: video-gateway worker"
    assert "serve runs one" in (await command("doctor", "--json")).one("workers", "skipped")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for name, release in (("a", RELEASE), ("b", "0.0.1")):
            await connection.execute(
                b"insert into workers (id, host, pid, version, started_at, seen_at) "
                b"values (%s, 'here', 1, %s, now(), now())",
                [name, release],
            )
        await connection.execute(
            b"insert into workers (id, host, pid, version, started_at, seen_at) "
            b"values ('gone', 'there', 1, '0.0.2', now(), now() - interval '1 h')"
        )
    found = await command("doctor", "--json", run_worker="false")
    assert found.one("workers", "ok").startswith("2 on 1 machine(s)")
    assert found.one("workers", "warning").startswith(
        f"some are of another release than this one ({RELEASE}): 0.0.1 ->"
    )


# Store


@pytest.mark.slow
async def test_a_bucket_is_written_and_one_that_does_not_exist_is_a_failure(command: Command, tmp_path: Path) -> None:
    async with open_bucket(tmp_path) as bucket:
        found = await command("doctor", "--json", storage_url=bucket.url, environment=bucket.environment)
        assert "s3://clips" in found.one("store", "ok")
        assert await bucket.keys() == []
        wrong = await command("doctor", "--json", storage_url="s3://nowhere", environment=bucket.environment)
    assert wrong.code == 1
    assert "NoSuchBucket" in wrong.one("store", "failed")
    assert "Create it, or correct GATEWAY_STORAGE_URL" in wrong.one("store", "failed")
    away = {**bucket.environment, "AWS_ENDPOINT_URL": closed_port()}
    assert (await command("doctor", "--json", storage_url="s3://clips", environment=away)).one("store", "failed")


async def test_a_directory_that_is_missing_or_unusable(command: Command, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    missing = await command("doctor", "--json", storage_url=f"file://{volume}")
    assert "mount it if it is a volume" in missing.one("store", "warning")
    assert not volume.exists()
    volume.write_text("a file")
    unusable = await command("doctor", "--json", storage_url=f"file://{volume}")
    assert unusable.one("store", "failed").startswith(f"{volume} cannot be used")
    volume.unlink()
    volume.mkdir()
    assert "GiB free" in (await command("doctor", "--json", storage_url=f"file://{volume}")).checks["store"][0]["text"]
    assert list(volume.iterdir()) == []


# Providers and addresses


@asynccontextmanager
async def self_signed(folder: Path) -> AsyncIterator[str]:
    """A TLS server with a certificate that no authority signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "server.pem"
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem) + key.private_bytes(pem, *plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_each_fault_of_a_provider_is_named(command: Command, tmp_path: Path) -> None:
    fake, other = FakeOpenAI(), FakeOpenAI()
    other.script("poll", *(Answer(status, {"error": {"message": "x"}}) for status in (402, 500)), Hang())
    page = b"HTTP/1.1 302 Found\r\nlocation: https://example.com/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    async with (
        serve(fake) as url,
        serve(other) as second,
        serve_bytes(page) as moved,
        self_signed(tmp_path) as tls,
    ):
        settings = {
            **provider(url, called="good"),
            **provider(url, called="wrong", api_key="sk-the-wrong-one-0123456789"),
            **provider(url, called="rootless", base_url=f"{url}/api"),
            **provider(second, called="poor"),
            **provider(second, called="broken"),
            **provider(second, called="slow", timeout_s=0.2),
            **provider(moved, called="moved"),
            **provider(tls, called="tls"),
            **provider(url.replace("http:", "https:"), called="plain"),
            **provider(closed_port(), called="away"),
            **provider("http://no-such-host.invalid", called="nameless"),
        }
        found = await command("doctor", "--json", **settings)
    assert found.code == 1
    expected = {
        "good": ("ok", "answers and accepts the key"),
        "wrong": ("failed", "refuses the gateway's credentials (401)"),
        "rootless": ("warning", "which may lack the version"),
        "poor": ("warning", "has no credit left"),
        "broken": ("ok", "answers (500); the key could not be checked"),
        "slow": ("failed", "no answer: it takes too long"),
        "moved": ("failed", "answered with a redirect (302)"),
        "tls": ("failed", "its TLS certificate is not valid (self-signed certificate)"),
        "plain": ("failed", "the TLS handshake failed"),
        "away": ("failed", "the connection is refused"),
        "nameless": ("failed", "its name does not resolve"),
    }
    results = {name.removeprefix("provider "): checks for name, checks in found.checks.items() if " " in name}
    for name, (status, words) in expected.items():
        (check,) = results[name]
        assert (check["status"], words in check["text"]) == (status, True), check
        assert (check["hint"] == "") == (status == "ok"), check
    assert "GATEWAY_PROVIDERS__WRONG__API_KEY" in results["wrong"][0]["hint"]
    assert "the-wrong-one" not in found.out
    assert fake.submits == other.submits == []


async def test_a_public_address_that_leads_elsewhere_is_a_warning(command: Command, fake: FakeOpenAI) -> None:
    async with serve(fake) as url:
        other = await command("doctor", "--json", public_url=url)
    assert "is not a video-gateway" in other.one("public URL", "warning")
    unset = await command("doctor", "--json", host="0.0.0.0")
    assert "set GATEWAY_PUBLIC_URL" in unset.one("public URL", "warning")
    plain = await command("doctor", "--json", public_url="http://me:sekret-word@video.no-such-host.invalid")
    texts = [check["text"] for check in plain.checks["public URL"]]
    assert [check["status"] for check in plain.checks["public URL"]] == ["warning", "warning"]
    assert "unencrypted" in texts[0]
    assert "its name does not resolve" in texts[1]
    assert "sekret" not in plain.out
    assert plain.code == 0
