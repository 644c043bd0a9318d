"""The command line for the pepper, the secret behind key hashes and links."""

from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from app.accounts.audit import command_actor
from app.accounts.pepper import adopt_pepper
from app.cli.commands import Commands
from app.cli.manage import complaints, console, load, with_database
from app.db.database import Database

pepper_cli = Commands(help="Manage the pepper, the secret behind key hashes and links.")

WARNING = (
    "All API keys, media links and addresses for upstream callbacks that were made with another pepper than the one "
    "configured here stop working. Videos, projects and money stay."
)


@pepper_cli.callback()
def pepper() -> None:
    pass  # one command alone would take the place of the group


@pepper_cli.command("adopt")
def adopt(yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False) -> None:
    """Make the pepper configured here that of the database, and give up what was made with another.

    For a database whose pepper is lost. Keys stay listed, so that you see which to make again.
    """
    config = load()
    if not yes:
        complaints.print(WARNING, highlight=False)
        typer.confirm("Continue?", abort=True, err=True)

    async def run(database: Database, now: datetime) -> int | None:
        async with database.transaction() as session:
            return await adopt_pepper(session, config, actor=command_actor(), now=now)

    useless = with_database(config, run)
    if useless is None:
        message = "It is this database's pepper already; nothing is changed."
    else:
        message = (
            f"The pepper is adopted; keys that are useless now: {useless}. Restart every server and worker with it, "
            "then make new keys: video-gateway keys create NAME"
        )
    console.print(escape(message), highlight=False, soft_wrap=True)
