"""Last use, spending of the month and running jobs of keys, as the operator sees them."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from accounts.billing import Open, asked
from money import Operator

from app.accounts.key_uses import KeyUses

pytestmark = pytest.mark.anyio


async def use_of(admin: Operator, key: dict[str, Any]) -> tuple[Any, Any, Any]:
    found = await admin.ask("GET", f"keys/{key['id']}")
    [listed] = [row for row in (await admin.ask("GET", "keys"))["data"] if row["id"] == key["id"]]
    assert listed == found
    return found["last_used_at"], found["spent_usd"], found["running"]


async def test_a_key_shows_its_spending_and_its_running_jobs(admin: Operator) -> None:
    key, other = await admin.key("shop"), await admin.key("other")
    assert (key["last_used_at"], key["spent_usd"], key["running"]) == (None, 0, 0)
    for _ in range(2):
        assert (await asked(admin, key)).status_code == 202
    assert (await use_of(admin, key))[1:] == (0.8, 2), "held"
    for _ in range(4):
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(20)
    assert (await use_of(admin, key))[1:] == (0.05, 0)
    admin.gateway.clock.advance(2 * 86_400)
    await admin.gateway.worker.run_once()
    spent = 0.05 if admin.gateway.clock.now.day > 2 else 0
    assert (await use_of(admin, key))[1:] == (spent, 0), "of a closed day, too"
    assert (await use_of(admin, other))[1:] == (0, 0)
    budget = await admin.ask("PATCH", f"keys/{key['id']}", monthly_budget_usd=9)
    async with admin.user(key) as client:
        assert (await client.get("/v1/balance")).json()["available"]["amount"] == 9 - budget["spent_usd"]
    admin.gateway.clock.now = (admin.gateway.clock.now.replace(day=1) + timedelta(days=32)).replace(day=1)
    assert (await use_of(admin, key))[1:] == (0, 0)


async def test_the_last_use_is_written_later_and_never_goes_back(admin: Operator) -> None:
    key = await admin.key("shop")
    uses, clock = admin.gateway.gateway.authenticator.uses, admin.gateway.clock
    async with admin.user(key) as client:
        await client.get("/v1/models")
        first = clock.now
        assert (await use_of(admin, key))[0] is None, "no request writes it"
        await uses.write()
        assert (await use_of(admin, key))[0] == first.isoformat()
        clock.advance(90)
        await client.get("/v1/models")
        another = KeyUses(admin.gateway.gateway.db, lambda: first - timedelta(hours=1))  # a process behind in time
        another.note(key["id"])
        await asyncio.gather(uses.write(), another.write())
        assert (await use_of(admin, key))[0] == clock.now.isoformat()
    wrong = await admin.client.get("/v1/models", headers={"authorization": f"Bearer {key['key'][:-1]}"})
    assert wrong.status_code == 401
    await admin.ask("DELETE", f"keys/{key['id']}")
    before = clock.now
    clock.advance(5)
    assert (await asked(admin, key)).status_code == 401
    await uses.write()
    assert (await use_of(admin, key))[0] == before.isoformat(), "a refused request is no use"


async def test_uses_that_could_not_be_written_are_written_with_the_next(admin: Operator, database_url: str) -> None:
    key = await admin.key("shop")
    uses = admin.gateway.gateway.authenticator.uses
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("alter table key_uses rename to away")
        async with admin.user(key) as client:
            assert (await client.get("/v1/models")).status_code == 200
        await uses.write()
        assert (await admin.key("made meanwhile"))["last_used_at"] is None, "its secret is not lost"
        await connection.execute("alter table away rename to key_uses")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("lock table key_uses in exclusive mode")
        with pytest.raises(TimeoutError):  # a server that is stopped
            await asyncio.wait_for(uses.write(), 0.2)
    await uses.write()
    assert (await use_of(admin, key))[0] == admin.gateway.clock.now.isoformat()


async def test_a_use_does_not_make_processes_forget_their_keys(admin: Operator) -> None:
    key = await admin.key("shop")
    async with admin.user(key) as client:
        await client.get("/v1/models")
    changes = admin.gateway.gateway.listener.key_changes
    await admin.gateway.gateway.authenticator.uses.write()
    await admin.gateway.gateway.db.notify("gateway_keys", "a later notice")
    async with asyncio.timeout(20):
        while admin.gateway.gateway.listener.key_changes == changes:  # noqa: ASYNC110  # it is Postgres that is waited for
            await asyncio.sleep(0.01)
    assert admin.gateway.gateway.listener.key_changes == changes + 1


async def test_what_is_noted_is_written_when_a_server_stops(opened: Open, database_url: str) -> None:
    async with opened() as admin:
        key = await admin.key("shop")
        async with admin.user(key) as client:
            await client.get("/v1/models")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = await (await connection.execute("select key_id from key_uses")).fetchall()
    assert (key["id"],) in found
