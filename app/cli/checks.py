"""The checks of `video-gateway doctor`: their results, the installation they share, and those of its own parts."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum

from app import net, providers, settings
from app.admin.shown_settings import cleaner, default_model_problem
from app.db.database import Database
from app.db.faults import read_fault
from app.media import ffmpeg
from app.media.bucket import try_store
from app.media.store import directory_of
from app.mistakes import install, too_short
from app.providers.base import Provider
from app.settings import ConfigurationError, Settings
from app.telemetry import logs

LITTLE_SPACE_BYTES, LEAST_SPACE_BYTES = 2**30, 100 * 2**20
"""Free space of a store below which it is a warning, and a failure."""
NEXT_STEPS = {
    "unreachable": "start PostgreSQL, or correct GATEWAY_DATABASE_URL",
    "login_refused": "correct the user, password or database in GATEWAY_DATABASE_URL, or the server's pg_hba.conf",
    "read_only": "name the primary in GATEWAY_DATABASE_URL, or all servers with ?target_session_attrs=read-write",
}
"""Next step by kind of fault of the database."""


class Status(StrEnum):
    ok = "ok"
    warning = "warning"
    failed = "failed"
    skipped = "skipped"


@dataclass(frozen=True)
class Check:
    """One result; the hint is the next step."""

    name: str
    status: Status
    text: str
    hint: str = ""


class Skip(Exception):
    """A check cannot be made; the message says why."""


@dataclass
class Installation:
    """Parts of the installation, as far as the checks so far have found them. Raises `Skip` for one that is missing."""

    stack: AsyncExitStack
    """Closes what the checks open."""
    found_settings: Settings | None = None
    found_database: tuple[str, Database] | None = None
    found_providers: dict[str, Provider] = field(default_factory=dict)
    schema_is_current: bool = False
    clean: Callable[[str], str] = net.redact_urls
    """Removes the secrets of the settings from any text."""

    def use(self, config: Settings) -> None:
        """Take these settings as those of the installation."""
        self.found_settings = config
        self.clean = cleaner(config)

    @property
    def settings(self) -> Settings:
        if self.found_settings is None:
            raise Skip("the settings cannot be used")
        return self.found_settings

    @property
    def url(self) -> str:
        """The address of the database; secret."""
        if self.found_database is None:
            raise Skip("there is no database to ask")
        return self.found_database[0]

    @property
    def database(self) -> Database:
        """The database, whatever is in it."""
        if self.found_database is None:
            raise Skip("there is no database to ask")
        return self.found_database[1]

    @property
    def migrated(self) -> Database:
        """The database with the current schema."""
        if not self.schema_is_current:
            raise Skip("there is no database with the current schema to ask")
        return self.database


Run = Callable[[Installation], AsyncGenerator[Check]]
"""One check: yields its results, and raises `Skip` or any error."""


def split(message: str) -> tuple[str, str]:
    """The first line of an error's message, and the others as its next step."""
    text, _, hint = message.partition("\n")
    return text.strip(), " ".join(hint.split())


async def check_settings(here: Installation) -> AsyncGenerator[Check]:
    """Read the settings, and report where they come from and names that are none."""
    from app import dialects  # here, since it brings the web framework, which takes long to load

    name = "settings"
    try:
        config = settings.load()
        logs.configure_logging(config)
        dialects.configure(config)
    except ConfigurationError as error:
        for problem in str(error).splitlines():
            yield Check(name, Status.failed, problem, ".env.example lists all settings")
        return
    here.use(config)
    files, found = settings.origins()
    read = " and ".join(files) if files else "the environment alone"
    yield Check(name, Status.ok, f"{len({path[0] for path in found})} set, from {read}")
    for problem in settings.unknown_names():
        text, _, hint = problem.partition("; ")
        yield Check(name, Status.warning, text, hint)


async def check_secrets(here: Installation) -> AsyncGenerator[Check]:
    """Report secrets that can be guessed."""
    name, config = "secrets", here.settings
    short = [too_short(variable) for variable in config.short_secrets()]
    for problem in short:
        text, _, hint = problem.partition("; ")
        yield Check(name, Status.warning, text, hint)
    if not short:
        yield Check(name, Status.ok, "no key or secret of the settings is short")


async def check_store(here: Installation) -> AsyncGenerator[Check]:
    """Write, read and delete a file, and look for free space."""
    name, config = "store", here.settings
    url, directory = config.storage_url, directory_of(config)
    if url is not None and url.startswith("memory:"):
        yield Check(name, Status.warning, "files are kept in memory and are lost with the process", "for tests only")
        return
    if url is not None and not url.startswith("file:"):
        await try_store(url, directory)
        yield Check(name, Status.ok, f"a file was written to {url}, read and deleted")
        return
    if not directory.exists():
        if url is None:
            raise Skip(f"{directory} does not exist yet; the first start makes it")
        hint = "mount it if it is a volume; otherwise the next start makes it"
        yield Check(name, Status.warning, f"{directory} does not exist", hint)
        return
    await try_store(None, directory)
    free = (await asyncio.to_thread(shutil.disk_usage, directory)).free
    text = f"a file was written to {directory}, read and deleted; {free / 2**30:.1f} GiB free"
    little = free < LITTLE_SPACE_BYTES
    status = Status.failed if free < LEAST_SPACE_BYTES else Status.warning if little else Status.ok
    yield Check(name, status, text, "free space there, or lower GATEWAY_RETENTION_S" if little else "")


async def check_ffmpeg(here: Installation) -> AsyncGenerator[Check]:
    """Find the program that makes pictures and test videos."""
    name = "ffmpeg"
    _ = here.settings
    try:
        program = await asyncio.to_thread(ffmpeg.program)
    except ffmpeg.FfmpegMissing:
        text = "there is none: thumbnails, sprite sheets and test videos are refused"
        yield Check(name, Status.warning, text, f"install ffmpeg, or {install('ffmpeg')}")
        return
    yield Check(name, Status.ok, f"{program.version or 'of unknown version'} at {program.path}")


async def check_models(here: Installation) -> AsyncGenerator[Check]:
    """Build the providers, and report those, aliases and prices that lead nowhere, and the default model."""
    name, config = "models", here.settings
    with logs.collected_warnings() as warnings:
        try:
            here.found_providers = providers.build(config)
        except ConfigurationError as error:
            for problem in str(error).splitlines():
                yield Check(name, Status.failed, problem, "video-gateway config show has each value and its origin")
            return
    for provider in here.found_providers.values():
        here.stack.push_async_callback(provider.aclose)
    for warning in warnings:
        yield Check(name, Status.warning, warning, "video-gateway models lists what can be requested")
    vendors = [provider.name for provider in here.found_providers.values() if provider.kind != "sandbox"]
    if vendors:
        yield Check(name, Status.ok, f"providers: {', '.join(vendors)}; aliases: {len(config.models)}")
    else:
        text = "no vendor is configured: only the sandbox makes videos"
        yield Check(name, Status.warning, text, "set a vendor's key, such as GATEWAY_PROVIDERS__LUMENFALL__API_KEY")
    reason = default_model_problem(config, here.found_providers)
    if reason is not None:
        yield Check(name, Status.failed, reason, "name one that video-gateway models lists")


def failure(name: str, error: Exception) -> Check:
    """The result of a check that raised: the error in words, without a traceback."""
    if (fault := read_fault(error)) is not None:
        text = f"{fault.text} ({fault.detail})" if fault.detail else fault.text
        return Check(name, Status.failed, text, NEXT_STEPS.get(fault.kind, "see docs/deploy.md, Database"))
    if isinstance(error, ConfigurationError):
        return Check(name, Status.failed, *split(str(error)))
    return Check(name, Status.failed, f"the check itself failed ({type(error).__name__})", "please report this")
