"""The command `console-link`: a link that signs a browser in to the console, once."""

import hmac
from datetime import datetime
from typing import Annotated

import typer

from app.accounts import keys, secrets, sessions
from app.accounts.secrets import derive_secret
from app.accounts.sessions import LINK_LIFETIME, Holder
from app.cli.manage import complaints, load, with_database
from app.db.database import Database
from app.settings import ConfigurationError, Settings
from app.video import SessionKind


def console_link(
    key: Annotated[
        str | None, typer.Argument(help="Id of an API key, as `keys list` shows it.", show_default=False)
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Sign in as the operator, with the first admin key.")] = False,
) -> None:
    """Print a link that signs a browser in to the console, once and within ten minutes.

    Without a key, the first key of the settings, or the one that the first start has made.
    """
    config = load()
    if not config.console:
        raise ConfigurationError("the console is off; set GATEWAY_CONSOLE=true")

    async def make(database: Database, now: datetime) -> str:
        holder = own_holder(config, admin=admin)
        if key is not None:
            async with database.transaction() as session:
                holder = Holder(SessionKind.key, (await keys.get_key(session, key)).hash)
        if holder is None:
            what = "an admin key: set GATEWAY_ADMIN_KEY" if admin else "a key: name one that `keys list` shows"
            raise ConfigurationError(f"a link needs {what}")
        async with database.reading() as connection:
            return await sessions.make_link(connection, holder, now=now)

    code = with_database(config, make)
    print(address_of(config.public_url or f"http://127.0.0.1:{config.port}", code))
    complaints.print(f"It works once, for {LINK_LIFETIME.total_seconds() / 60:g} minutes.", highlight=False)


def address_of(url: str, code: str) -> str:
    return f"{url}/console/login?code={code}"


def own_holder(config: Settings, *, admin: bool = False) -> Holder | None:
    """The holder of the first admin key, or of the first API key that needs no row in the database; None without."""
    if admin:
        key = next((given.key.get_secret_value() for given in config.operators.values()), None)
    else:
        key = next(iter(config.static_keys), None) or secrets.existing_key(config)
    if key is None:
        return None
    hashed = hmac.digest(derive_secret(config, "api-keys"), key.encode(), "sha256").hex()
    return Holder(SessionKind.admin if admin else SessionKind.key, hashed)
