"""Database addresses as operators paste them: libpq's forms, options of other clients, and passwords never shown."""

import re
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from urllib.parse import quote, unquote

import psycopg
import pytest
import sqlalchemy as sa
from harness import plain, scratch_database, sqlalchemy_url
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from app import settings
from app.cli.manage import with_database
from app.db.address import read_address
from app.db.database import Database, running_database
from app.db.migrate import schema_revision
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "options", "shown"),
    [
        ("//h1:5432,h2:5433/db", "host=h1,h2 port=5432,5433 dbname=db", "//h1:5432,h2:5433/db"),
        (
            "//u@h1,h2/db?target_session_attrs=read-write",
            "user=u host=h1,h2 dbname=db target_session_attrs=read-write",
            "//u@h1,h2/db",
        ),
        ("//u@%2Fvar%2Frun%2Fpostgresql/db", "user=u host=/var/run/postgresql dbname=db", "//u@/db"),
        ("//u@/db?host=/run/postgresql", "user=u host=/run/postgresql dbname=db", "//u@/db"),
        ("///db?host=h1:1&host=h2:2", "host=h1,h2 port=1,2 dbname=db", "//h1:1,h2:2/db"),  # SQLAlchemy's
        ("//[::1]:5/db", "host=::1 port=5 dbname=db", "//[::1]:5/db"),
        ("//u:p/w:x#y?z%zz%20@h/d%20b", r"user=u password='p/w:x#y?z%zz ' host=h dbname='d b'", "//u:***@h/d%20b"),
        ("//me@srv:p%40@h/db", "user=me@srv password=p@ host=h dbname=db", "//me%40srv:***@h/db"),  # Azure's
        ("//h/db?user=a@b&password=a+b", "host=h dbname=db user=a@b password=a+b", "//a%40b:***@h/db"),
        ("//h/db?ssl=true", "host=h dbname=db sslmode=require", "//h/db"),
        ("//h/db?connect_timeout=2", "host=h dbname=db connect_timeout=2", "//h/db"),
        ("//", "", "///"),
    ],
)
def test_every_form_of_an_address_is_read(url: str, options: str, shown: str) -> None:
    for scheme in ("postgres:", "postgresql:", "postgresql+asyncpg:"):
        address = read_address(scheme + url)
        assert address.options == conninfo_to_dict(options)
        assert str(address) == "postgresql:" + shown
        assert read_address(address.url) == address, "it can be handed to a child process"
    assert "p/w" not in repr(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("//u:sek@ret@h/db", r"more than one @.*percent-encode @ : / # % in the password \(@ is %40\).*PGPASSWORD"),
        ("//u:s?sekret=t@h/db", "an option before the @"),
        ("//u:sekret/w@ret@h:5432/db", "more than one @"),
        ("//u:sekret@h:70000/db", "the port is not a number from 1 to 65535"),
        ("//u:sekret@h:sekret/db", "the host or port is not valid"),
        ("//u:sekret@h#1/db", "the host or port is not valid"),
        ("//u:sekret@h/db?colour=sekret", "has no option colour; remove it"),
        ("//u:sekret@h/db?sekret", "not written as name=value"),
        ("//u:sekret@h/db?schema=videos", r"another client's; name the schema with options=-csearch_path%3D"),
        ("//u:sekret%00@h/db", "it has a %00"),
        ("//u:sekret\udcff@h/db", "characters that are not UTF-8"),
    ],
)
def test_a_wrong_address_is_refused_in_words(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"GATEWAY_DATABASE_URL cannot be read .*{reason}") as caught:
        read_address("postgresql:" + url)
    assert not re.search("sek|ret", str(caught.value))


async def test_options_of_other_clients_are_dropped_with_a_warning_each(
    migrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{migrated}{'&' if '?' in migrated else '?'}pgbouncer=true&schema=public&connection_limit=5&pgbouncer=true"
    async with running_database(settings.load(database_url=url)) as clean:
        assert await schema_revision(clean) is not None
    assert re.findall(r"database option dropped .*option\S*=\W*(\w+)", plain(capsys.readouterr().out)) == [
        "pgbouncer",
        "schema",
        "connection_limit",
    ]


@pytest.fixture
async def role(postgres: str) -> AsyncIterator[str]:
    """An empty database and a role of the same name that may use it; yields the name."""
    async with scratch_database(postgres) as url:
        name = str(sa.make_url(sqlalchemy_url(url)).database)
        async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as connection:
            await connection.execute(f"create role {name} login password 'sekret'".encode())
            try:
                yield name
            finally:
                await connection.execute(f"drop role {name}".encode())


async def test_what_the_address_leaves_out_comes_from_the_environment(
    role: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in conninfo_to_dict(postgres).items():
        if value and name in ("host", "port"):
            monkeypatch.setenv(f"PG{name.upper()}", str(value))
    for name, value in (("PGPASSWORD", "sekret"), ("PGSSLMODE", "disable"), ("PGAPPNAME", "mine")):
        monkeypatch.setenv(name, value)
    url = f"postgresql://{role}@/{role}"
    assert await schema_revision(url) is None
    database = Database(url)
    await database.open()
    query = b"select current_user::text as name, current_setting('application_name') as app"
    assert await database.one(query, {}) == {"name": role, "app": "mine"}
    await database.close()


async def test_libpqs_forms_reach_the_database(migrated: str) -> None:
    options = conninfo_to_dict(migrated)
    host, port = str(options.pop("host")), str(options.pop("port", "") or "5432")
    user = f"{options['user']}:{quote(str(options.get('password', '')))}"
    place = f"{quote(host, safe='')}:{port}"
    name = options["dbname"]
    for url in (
        f"postgresql://{user}@{place}/{name}",
        f"postgresql://{user}@127.0.0.1:1,{place}/{name}?target_session_attrs=read-write",
        f"postgresql:///{name}?host={host}&port={port}&user={user.partition(':')[0]}&password={user.partition(':')[2]}",
    ):
        async with running_database(settings.load(database_url=url)) as clean:
            assert await schema_revision(clean) is not None
            database = Database(clean)
            await database.open()
            assert await database.check() is None
            assert await database.one(b"select 1 as one", {}) == {"one": 1}
            await database.close()


LETTERS = "QXZJ"
"""Letters of passwords; no message has three of them in a row."""
passwords = st.text(st.sampled_from(LETTERS + "@:/#%?&=+,[]\\ '\"0"), min_size=3, max_size=24)
tails = st.sampled_from(
    ["127.0.0.1:1/db", "127.0.0.1:1", "/db?host=127.0.0.1&port=1", "127.0.0.1:x/db", "127.0.0.1:1/db?colour=1", ""]
)


@given(password=passwords, tail=tails, user=st.sampled_from(["u", "", "u@s"]), encode=st.sampled_from(["", "/:", "@"]))
@example(password="QXZ@XZQ/JJJ:ZZZ#1", tail="127.0.0.1:1/db", user="u", encode="")
@example(password="XJX?QQQ=ZZZ", tail="127.0.0.1:1/db", user="u", encode="")
@hypothesis_settings(deadline=None, max_examples=60)
def test_no_piece_of_a_password_is_shown(password: str, tail: str, user: str, encode: str) -> None:
    written = "".join(quote(c, safe="") if c in encode else c for c in password)
    said = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setenv("GATEWAY_DATABASE_URL", f"postgresql://{user}:{written}@{tail}")
        patch.setenv("PGPORT", "1")
        with pytest.raises(ConfigurationError, match=r"cannot be (read|reached)") as caught:
            with_database(settings.load(), lambda database, now: database.check())  # as every command does
    text = unquote(said.getvalue() + str(caught.value))
    assert not re.search(f"[{LETTERS}]{{3}}", text), text
