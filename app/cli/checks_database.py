"""The checks of `video-gateway doctor` of the database, and of what is in it."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import psycopg

from app.accounts import keys, secrets
from app.accounts.pepper import check_pepper
from app.cli.checks import NEXT_STEPS, Check, Installation, Skip, Status, failure
from app.db import probe
from app.db.address import read_address
from app.db.clock import WARN_S
from app.db.database import Database, running_database
from app.db.faults import TEXTS
from app.db.migrate import SchemaAhead, SchemaBehind, newest_revision, require_current_schema
from app.db.probe import Pooling
from app.jobs import presence
from app.telemetry import logs


async def check_database(here: Installation) -> AsyncGenerator[Check]:
    """Reach the database; the embedded one is started, as by other commands, if it has been made."""
    name, config = "database", here.settings
    embedded = config.database_url is None
    if embedded and not (config.data_dir / "postgres" / "PG_VERSION").exists():
        raise Skip(f"there is none in {config.data_dir} yet; video-gateway serve makes it")
    with logs.collected_warnings() as warnings:
        url = await here.stack.enter_async_context(running_database(config))
    for warning in warnings:
        yield Check(name, Status.warning, warning)
    address = read_address(url)
    server = await probe.read_server(address)
    database = Database(url, pool_size=1, prepare=False)
    here.stack.push_async_callback(database.close)
    here.found_database = url, database
    place = f"embedded, in {config.data_dir}" if embedded else str(address)
    if server.major < probe.LEAST_VERSION:
        text = f"PostgreSQL {server.version} is too old: {probe.LEAST_VERSION} or newer is needed"
        yield Check(name, Status.failed, text, "upgrade the server")
    elif server.read_only:
        yield Check(name, Status.failed, TEXTS["read_only"], NEXT_STEPS["read_only"])
    else:
        yield Check(name, Status.ok, f"PostgreSQL {server.version}, {place}, takes writes")


async def check_schema(here: Installation) -> AsyncGenerator[Check]:
    """Compare the schema with the one that this release needs."""
    name, embedded = "schema", here.settings.database_url is None
    try:
        await require_current_schema(here.url)
    except SchemaAhead as error:
        yield Check(name, Status.failed, *_parts(error))
    except SchemaBehind as error:
        text, hint = _parts(error)
        status = Status.warning if embedded else Status.failed
        yield Check(name, status, text, "the next start migrates it" if embedded else hint)
    else:
        here.schema_is_current = True
        yield Check(name, Status.ok, f"{newest_revision()}, which this release needs")


def _parts(error: SchemaBehind) -> tuple[str, str]:
    """The text of an error about the schema, and the command in it."""
    text, _, command = str(error).partition(". Run\n")
    text, _, advice = text.partition("; ")
    return text, " ".join(command.split()) or advice


async def check_clock(here: Installation) -> AsyncGenerator[Check]:
    """Compare this machine's clock with the database's."""
    name, database = "clock", here.database
    await database.now()  # connects
    before = time.time()
    there = (await database.now()).timestamp()
    ahead_s = (before + time.time()) / 2 - there
    if abs(ahead_s) <= WARN_S:
        yield Check(name, Status.ok, "this machine and the database agree")
        return
    way = "ahead of" if ahead_s > 0 else "behind"
    hint = "set both by NTP: vendors and receivers of webhooks compare times with their own clocks"
    yield Check(name, Status.warning, f"this machine is {abs(ahead_s):.0f} s {way} the database", hint)


async def check_the_pepper(here: Installation) -> AsyncGenerator[Check]:
    """Compare the pepper with the database's fingerprint."""
    name = "pepper"
    async with here.migrated.transaction() as session:
        fits = await check_pepper(session, here.settings)
    if not fits:
        raise Skip("the database has no fingerprint yet; the first server writes it")
    yield Check(name, Status.ok, "it is the one of this database's keys and links")


async def check_notices(here: Installation) -> AsyncGenerator[Check]:
    """Listen as each process does, and send a notice."""
    name, given = "notices", here.settings.database_listen_url
    sending = read_address(here.url)
    variable = "GATEWAY_DATABASE_URL" if given is None else "GATEWAY_DATABASE_LISTEN_URL"
    listening = sending if given is None else read_address(given.get_secret_value(), variable)
    try:
        arrives = await probe.notice_arrives(listening, sending)
    except psycopg.Error as error:
        found = failure(name, error)
        yield replace(found, hint=found.hint.replace("GATEWAY_DATABASE_URL", variable))
        return
    if arrives:
        yield Check(name, Status.ok, "LISTEN receives what NOTIFY sends")
        return
    text = f"no notice arrived within {probe.NOTICE_S} s: ?wait= and event streams see changes seconds later"
    hint = "set GATEWAY_DATABASE_LISTEN_URL to the server itself, without a pooler"
    if given is not None:
        hint = "GATEWAY_DATABASE_LISTEN_URL must lead to the same database, without a pooler"
    yield Check(name, Status.warning, text, hint)


async def check_pooler(here: Installation) -> AsyncGenerator[Check]:
    """Find a pooler in between that mixes up prepared statements."""
    name, pooling = "pooler", await probe.find_pooling(read_address(here.url))
    if pooling is Pooling.direct:
        yield Check(name, Status.ok, "none in transaction mode; prepared statements work")
    elif pooling is Pooling.tracked:
        yield Check(name, Status.ok, "one in transaction mode that keeps track of prepared statements")
    elif not here.settings.database_prepare:
        yield Check(name, Status.ok, "one in transaction mode; GATEWAY_DATABASE_PREPARE is false, as it should be")
    else:
        text = "one in transaction mode mixes up prepared statements: some requests fail after each start"
        yield Check(name, Status.warning, text, "set GATEWAY_DATABASE_PREPARE=false")


async def check_workers(here: Installation) -> AsyncGenerator[Check]:
    """Count the workers that run, and compare their releases with this one."""
    name = "workers"
    async with here.migrated.reading() as connection:
        running = await presence.list_running(connection)
    if not running:
        if here.settings.run_worker:
            raise Skip("none runs now; video-gateway serve runs one")
        text = "none runs: no video is made"
        yield Check(name, Status.failed, text, "start one: video-gateway worker")
        return
    others = sorted({worker.version for worker in running} - {presence.RELEASE})
    yield Check(name, Status.ok, f"{len(running)} on {len({worker.host for worker in running})} machine(s)")
    if others:
        text = f"some are of another release than this one ({presence.RELEASE}): {', '.join(others)}"
        yield Check(name, Status.warning, text, "run the same release everywhere")


async def check_keys(here: Installation) -> AsyncGenerator[Check]:
    """Look for an API key of the gateway."""
    name, config = "API keys", here.settings
    if config.static_keys:
        yield Check(name, Status.ok, f"{len(config.static_keys)} in GATEWAY_API_KEYS")
        return
    if (config.secrets_dir / secrets.FIRST_KEY).exists():
        yield Check(name, Status.ok, "the one that the first start made")
        return
    async with here.migrated.transaction() as session:
        has_keys = await keys.has_keys(session)
    if has_keys:
        yield Check(name, Status.ok, "made by video-gateway keys create")
    elif config.database_url is None:
        raise Skip("there is none yet; the first start of the server makes one")
    else:
        text = "there is none: every request is refused"
        yield Check(name, Status.warning, text, "video-gateway keys create NAME")
