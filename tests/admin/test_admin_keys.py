"""Named admin keys: several work at once, and one with the role `read` changes nothing."""

from typing import Any

import httpx
import pytest
from admin.test_admin_calls import ADMIN_CALLS
from harness import ORIGIN, Running, StartGateway
from money import ADMIN, operator_of

pytestmark = pytest.mark.anyio

ALICE, READER = "adm-alice-0123456789", "adm-reader-0123456789"
KEYS = {"alice": ALICE, "dash board": {"key": READER, "role": "read"}}
READS = ("GET", "HEAD")


async def asked(gateway: Running, key: str, method: str, path: str, body: Any = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=gateway.client._transport, base_url=ORIGIN, headers=headers) as client:
        return await client.request(method, f"/admin/v1/{path}", json=body)


async def test_every_named_key_and_the_old_one_work(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN, admin_keys=KEYS) as gateway:
        for key in (ADMIN, ALICE, READER):
            assert (await asked(gateway, key, "GET", "projects")).status_code == 200
        wrong = [await asked(gateway, f"{ALICE}{number}", "GET", "projects") for number in range(11)]
        assert [answer.status_code for answer in wrong] == [401] * 10 + [429]
        assert (await asked(gateway, "dash board", "GET", "projects")).status_code == 429, "a name is no key"
        for key in (ADMIN, ALICE, READER):
            assert (await asked(gateway, key, "GET", "projects")).status_code == 200, "right ones always work"
        for name, number in (("admin", 201), ("alice", 201)):
            key = {"admin": ADMIN, "alice": ALICE}[name]
            assert (await asked(gateway, key, "POST", "projects", {"name": name})).status_code == number
        found = (await asked(gateway, READER, "GET", "audit")).json()["data"]
        assert [entry["actor"]["name"] for entry in found] == ["alice", "admin"]


async def test_named_keys_alone_switch_the_api_on(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_keys={"alice": ALICE}) as gateway:
        assert (await asked(gateway, ALICE, "GET", "projects")).status_code == 200
        assert (await asked(gateway, ADMIN, "GET", "projects")).status_code == 401


async def test_a_key_that_may_only_read_changes_nothing(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN, admin_keys=KEYS) as gateway, operator_of(gateway) as operator:
        key = await operator.key("web")
        ids = {"proj_x": key["project"], "key_x": key["id"]}
        before = [await operator.ask("GET", path) for path in ("projects", "keys", "audit")]
        for method, path in ADMIN_CALLS:
            if method in READS:
                continue
            for name, real in ids.items():
                path = path.replace(name, real)
            refused = await asked(gateway, READER, method, path, {"name": "mine", "amount_usd": 5})
            error = refused.json()["error"]
            assert (refused.status_code, error["type"], error["code"]) == (403, "permission_error", "read_only_key")
            assert "'dash board' may only read; use one with the role `write`" in error["message"]
        assert [await operator.ask("GET", path) for path in ("projects", "keys", "audit")] == before
        assert (await asked(gateway, READER, "GET", f"keys/{key['id']}")).status_code == 200
