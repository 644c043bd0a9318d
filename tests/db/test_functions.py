"""The functions and triggers of the running server are those of `app/db/functions`."""

import re
from typing import Any

import psycopg
import pytest

from app.db.migrate import FUNCTIONS

pytestmark = pytest.mark.anyio

OURS = """
select proname, pg_get_functiondef(oid) from pg_proc
where proname like 'gateway\\_%' and pronamespace = current_schema()::regnamespace
"""
TRIGGERS = """
select tgrelid::regclass::text || '.' || tgname, pg_get_triggerdef(oid) from pg_trigger
where tgfoid::regproc::text like '%gateway\\_%' and not tgisinternal
"""


async def definitions(connection: psycopg.AsyncConnection[Any]) -> list[dict[str, str]]:
    """Functions and triggers of the gateway by name, as the server prints them."""
    return [dict(await (await connection.execute(query)).fetchall()) for query in (OURS, TRIGGERS)]


async def test_the_server_has_the_functions_and_triggers_of_the_files(migrated: str) -> None:
    """Functions created anew from the files are those that the migrations made: none differs, and none is missing."""
    async with await psycopg.AsyncConnection.connect(migrated) as connection:
        before = await definitions(connection)
        for name in before[0]:
            await connection.execute(f"drop function {name} cascade".encode())
        for file in sorted(FUNCTIONS.glob("*.sql")):
            await connection.execute(file.read_bytes())
        after = await definitions(connection)
        await connection.rollback()
    assert before == after
    assert [len(found) for found in before] == [12, 11]


def test_a_file_says_what_it_is_for_and_can_be_run_again() -> None:
    for file in sorted(FUNCTIONS.glob("*.sql")):
        text = file.read_text("utf-8")
        assert text.startswith("-- "), file.name
        again = r"drop trigger if exists (\w+) on (\w+);\ncreate constraint trigger \1 after \w+ on \2 "
        text = re.sub(again, "", text)
        assert re.findall(r"^create (?!or replace)", text, re.MULTILINE) == [], file.name
