"""Lumenfall's request log and list of keys: rows, pages, filters, sums, and what they refuse."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from dialects.openai_wire import error_of
from dialects.vendors import APILAPLAS
from harness import ALICE, BOB, ORIGIN, Running, StartGateway
from money import ADMIN, Operator, operator_of

pytestmark = pytest.mark.anyio

UNKNOWN_ID = "video_" + "0" * 26
USUAL = {"/openai/v1/videos": "/v1/videos", "/luma-ai/generations": APILAPLAS}
"""The usual create paths of the dialects of other ones."""


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        yield operator


async def read(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    found: dict[str, Any] = response.json()
    return found


async def ids_of(client: httpx.AsyncClient, path: str) -> list[str]:
    return [row["id"] for row in (await read(client, path))["data"]]


def iso(gateway: Running) -> str:
    return gateway.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def walked(client: httpx.AsyncClient, path: str, direction: str) -> list[list[str]]:
    """The ids of each page from the first one on, by the addresses in the answers."""
    pages = []
    following: str | None = path
    while following is not None:
        body = await read(client, following)
        pages.append([row["id"] for row in body["data"]])
        following = body[direction]
    return pages


# One request


async def test_a_request_shows_the_facts_of_its_video(gateway: Running) -> None:
    created = iso(gateway)
    body = {"prompt": "a paper boat", "user": "jane", "seconds": 1, "size": "64x64"}
    video_id = (await gateway.client.post("/openai/v1/videos", json=body)).json()["id"]
    done = await gateway.finish(video_id)
    static = (await read(gateway.client, "/v1/keys"))["data"][0]["id"]
    expected = {
        "id": video_id,
        "object": "request",
        "created_at": created,
        "model": "sandbox/testcard",
        "modality": "video",
        "endpoint": "/v1/videos",
        "status": "completed",
        "cost": done["cost"],
        "currency": "usd",
        "duration_ms": 1000 * (done["completed_at"] - done["created_at"]),
        "key_id": static,
        "error_code": None,
        "error_message": None,
        "session_id": None,
        "trace_id": None,
        "user": "jane",
        "request_size_bytes": None,
        "response_size_bytes": done["output"]["size_bytes"],
        "purged_at": None,
    }
    for mount in ("/v1", "/openai/v1"):
        assert await read(gateway.client, f"{mount}/requests/{video_id}") == expected
        assert await read(gateway.client, f"{mount}/requests") == {
            "object": "list",
            "data": [expected],
            "next_page_url": None,
            "previous_page_url": None,
        }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_create_of_each_dialect_is_a_request(gateway: Running, case: DialectCase) -> None:
    created = case.id_of((await gateway.client.post(case.create, json=case.body)).json())
    (row,) = (await read(gateway.client, "/v1/requests"))["data"]
    endpoint = USUAL.get(case.create, case.create)
    assert (row["id"], row["endpoint"], row["status"], row["duration_ms"]) == (created, endpoint, "pending", None)
    assert (await gateway.client.post(case.create, json=case.bad_body)).status_code == 400
    assert await ids_of(gateway.client, "/v1/requests") == [created], "a refused create is no request"


async def test_a_deleted_video_and_an_unknown_one_are_no_requests(gateway: Running) -> None:
    video = await gateway.create(seconds=1, size="64x64")
    await gateway.finish(video["id"])
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    assert await ids_of(gateway.client, "/v1/requests") == []
    for request_id in (video["id"], UNKNOWN_ID, "x", "%00", "a" * 1_000, "req_2m4jLFHhkN1i4VrVHpjJqCOKlPw"):
        for method, path in (("GET", f"/v1/requests/{request_id}"), ("DELETE", f"/v1/requests/{request_id}/payloads")):
            error = error_of(await gateway.client.request(method, path), 404)
            assert (error["param"], error["code"]) == ("request_id", "not_found")


# Pages


@pytest.mark.parametrize("mount", ["/v1", "/openai/v1"])
async def test_pages_are_walked_in_both_directions_by_their_addresses(gateway: Running, mount: str) -> None:
    made = []
    for number in range(7):
        made.append((await gateway.create(model="sandbox/slow"))["id"])
        gateway.clock.advance(number % 2)  # some were created in the same moment
    newest = made[::-1]
    down = await walked(gateway.client, f"{mount}/requests?limit=3", "next_page_url")
    assert down == [newest[:3], newest[3:6], newest[6:]]
    first = await read(gateway.client, f"{mount}/requests?limit=3")
    assert first["previous_page_url"] is None
    assert first["next_page_url"] == f"{mount}/requests?starting_after={newest[2]}&limit=3"
    last = f"{mount}/requests?limit=3&starting_after={newest[5]}"
    assert await walked(gateway.client, last, "previous_page_url") == [newest[6:], newest[3:6], newest[:3]]
    assert await walked(gateway.client, f"{mount}/requests?limit=7", "next_page_url") == [newest]
    empty = await read(gateway.client, f"{mount}/requests?starting_after={newest[6]}")
    assert (empty["data"], empty["next_page_url"], empty["previous_page_url"]) == ([], None, None)


async def test_addresses_of_pages_have_the_prefix_of_a_proxy(start_gateway: StartGateway) -> None:
    async with start_gateway(trusted_proxies="10.0.0.0/8") as gateway:
        newest = [(await gateway.create(model="sandbox/slow"))["id"] for _ in range(3)][::-1]
        transport = httpx.ASGITransport(gateway.app, client=("10.0.0.1", 50_000))
        headers = {"authorization": f"Bearer {ALICE}", "x-forwarded-prefix": "/video"}
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
            second = await read(client, f"/v1/requests?limit=1&starting_after={newest[0]}")
            keys = await read(client, "/v1/keys?limit=1")
    assert second["next_page_url"] == f"/video/v1/requests?starting_after={newest[1]}&limit=1"
    assert second["previous_page_url"] == f"/video/v1/requests?ending_before={newest[1]}&limit=1"
    assert keys["next_page_url"] is None


async def test_a_page_goes_on_after_a_request_that_was_deleted_meanwhile(gateway: Running) -> None:
    made = [(await gateway.create(model="sandbox/slow"))["id"] for _ in range(3)]
    address = (await read(gateway.client, "/v1/requests?limit=2"))["next_page_url"]
    for _ in range(2):  # cancelled, then deleted
        await gateway.client.delete(f"/v1/videos/{made[1]}")
        gateway.clock.advance(3_600)
    assert await ids_of(gateway.client, address) == [made[0]]
    gateway.clock.advance(60)
    await gateway.worker.run_once()  # its row is deleted
    error = error_of(await gateway.client.get(address), 400)
    assert error["param"] == "starting_after"
    assert "start again without starting_after" in error["message"]


# Filters


async def test_requests_are_filtered_and_summed_up(operator: Operator) -> None:
    gateway = operator.gateway
    mine = await operator.key("mine")
    other = await operator.key("other", project=mine["project"])
    made: dict[str, str] = {}

    async def create(key: dict[str, Any], name: str, model: str) -> None:
        async with operator.user(key) as client:
            response = await client.post("/v1/videos", json={"prompt": "p", "model": model, "size": "64x64"})
            made[name] = response.json()["id"]
        gateway.clock.advance(60)

    began = iso(gateway)
    await create(mine, "failed", "sandbox/fail")
    await create(mine, "done", "sandbox/testcard")
    for _ in range(10):
        await gateway.worker.run_once()
        gateway.clock.advance(5)
    middle = iso(gateway)
    await create(other, "cancelled", "sandbox/slow")
    await create(other, "waiting", "sandbox/slow")
    async with operator.user(other) as client:
        await client.delete(f"/v1/videos/{made['cancelled']}")

        async def names(query: str) -> list[str]:
            by_id = {video_id: name for name, video_id in made.items()}
            return [by_id[found] for found in await ids_of(client, f"/v1/requests?{query}")]

        assert await names("") == ["waiting", "cancelled", "done", "failed"]
        assert await names(f"key_id={mine['id']}") == ["done", "failed"]
        assert await names(f"created_after={middle}") == ["waiting", "cancelled"]
        assert await names(f"created_before={began}") == ["failed"]
        assert await names(f"created_after={began}&created_before={middle}&key_id={mine['id']}") == ["done", "failed"]
        assert await names(f"created_after={middle}&created_before={began}") == []
        assert await names(f"created_after={middle.replace('Z', '+00:00')}") == ["waiting", "cancelled"]  # not encoded
        for status, expected in (
            ("pending", ["waiting"]),
            ("processing", []),
            ("completed", ["done"]),
            ("upstream_failure", ["failed"]),
            ("cancelled", ["cancelled"]),
            ("rejected", []),
        ):
            assert await names(f"status={status}") == expected
            rows = (await read(client, f"/v1/requests?status={status}"))["data"]
            assert {row["status"] for row in rows} <= {status}
        assert await names("key_id=key_of_another_kind") == []
        assert await names(f"created_after={middle}&ending_before={made['failed']}") == ["waiting", "cancelled"]
        assert await names(f"created_before={began}&starting_after={made['waiting']}") == ["failed"]

        done = (await read(client, f"/v1/requests/{made['done']}"))["cost"]
        body = await read(client, "/v1/requests?summary=true&limit=1")
        assert body["summary"] == {"total_count": 4, "total_cost": done or 0, "currency": "usd"}
        assert [row["id"] for row in body["data"]] == [made["waiting"]]
        following = await read(client, body["next_page_url"])
        assert following["summary"] == body["summary"]
        body = await read(client, f"/v1/requests?summary=true&status=cancelled&key_id={mine['id']}")
        assert body["summary"] == {"total_count": 0, "total_cost": 0, "currency": "usd"}
        kept = await read(client, f"/v1/requests?limit=1&created_after={began}&key_id={mine['id']}")
        assert await ids_of(client, kept["next_page_url"]) == [made["failed"]]


REFUSED = (
    *("limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=1e999", "limit=2.5"),
    *("starting_after=", "starting_after=x", f"starting_after={UNKNOWN_ID}", "starting_after=%00"),
    *("ending_before=x", f"ending_before={UNKNOWN_ID}", "ending_before=%F0%9F%90%8D", "ending_before=" + "a" * 400),
    *("created_after=x", "created_after=", "created_after=1767225600", "created_after=2026-11-01"),
    *("created_after=2026-11-01T00:00:00", "created_after=2026-13-01T00:00:00Z", "created_after=%00"),
    *("created_before=0001-01-01T00:00:00Z", "created_before=9999-12-31T23:59:59-14:00", "created_before=-1"),
    *("key_id=%00", "key_id=" + "k" * 400, "status=failed", "status=", "summary=perhaps"),
)


@pytest.mark.parametrize("query", REFUSED)
async def test_bad_parameters_are_refused_by_name(gateway: Running, query: str) -> None:
    error = error_of(await gateway.client.get(f"/v1/requests?{query}"), 400)
    assert (error["param"], error["code"]) == (query.partition("=")[0], "invalid_value")


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/keys"])
async def test_a_page_begins_at_one_end_only(gateway: Running, path: str) -> None:
    error = error_of(await gateway.client.get(f"{path}?starting_after=a&ending_before=b"), 400)
    assert error["param"] == "ending_before"


async def test_a_request_of_another_project_is_no_place_in_the_list(gateway: Running) -> None:
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "b"})).json()["id"]
    about_theirs = error_of(await gateway.client.get(f"/v1/requests?starting_after={theirs}"), 400)["message"]
    about_none = error_of(await gateway.client.get(f"/v1/requests?starting_after={UNKNOWN_ID}"), 400)["message"]
    assert about_theirs.replace(theirs, "") == about_none.replace(UNKNOWN_ID, "")
    key_id = (await read(gateway.bob, "/v1/keys"))["data"][0]["id"]
    body = await read(gateway.client, f"/v1/requests?key_id={key_id}&summary=true")
    assert (body["data"], body["summary"]["total_count"]) == ([], 0)
    assert (await gateway.bob.delete(f"/v1/requests/{theirs}/payloads")).status_code == 409, "it is his, and running"


# Keys


async def test_keys_of_the_project_are_listed_without_themselves(operator: Operator) -> None:
    gateway = operator.gateway
    first = await operator.key("first")
    made = [first]
    for name in ("second", "third", "fourth"):
        gateway.clock.advance(1)
        made.append(await operator.key(name, project=first["project"]))
    await operator.key("of another project")
    await operator.ask("DELETE", f"keys/{made[1]['id']}")
    soon = gateway.clock().replace(year=gateway.clock().year + 1).isoformat()
    await operator.ask("PATCH", f"keys/{made[2]['id']}", expires_at=soon)
    gateway.clock.advance(400 * 86_400)
    newest = [key["id"] for key in made[::-1]]
    async with operator.user(made[3]) as client:
        body = await read(client, "/v1/keys")
        assert [key["id"] for key in body["data"]] == newest
        shown = body["data"][3]
        assert shown == {
            "id": first["id"],
            "object": "key",
            "name": "first",
            "last_four": first["key"][-4:],
            "status": "active",
            "created_at": shown["created_at"],
            "expires_at": None,
            "revoked_at": None,
        }
        assert shown["created_at"].endswith("Z")
        for key in made:
            assert key["key"] not in str(body)
            assert gateway.gateway.authenticator.hash(key["key"]) not in str(body)
        assert await ids_of(client, "/v1/keys?status=active") == [newest[0], newest[3]]
        assert await ids_of(client, "/openai/v1/keys?status=revoked") == newest[1:3]
        assert await walked(client, "/v1/keys?limit=3", "next_page_url") == [newest[:3], newest[3:]]
        back = f"/v1/keys?limit=3&ending_before={newest[3]}"
        assert await walked(client, back, "previous_page_url") == [newest[:3]]
        kept = (await read(client, "/v1/keys?limit=1&status=active"))["next_page_url"]
        assert await ids_of(client, kept) == [newest[3]]


async def test_a_key_of_the_settings_is_the_oldest_of_its_project(start_gateway: StartGateway) -> None:
    keys = {"web shop": "sk-web-shop-0123456789", "bob": BOB}
    async with start_gateway(admin_key=ADMIN, api_keys=keys) as gateway, operator_of(gateway) as operator:
        headers = {"authorization": f"Bearer {keys['web shop']}"}
        static = (await gateway.client.get("/v1/keys", headers=headers)).json()["data"]
        assert static == [
            {
                "id": static[0]["id"],
                "object": "key",
                "name": "web shop",
                "last_four": None,
                "status": "active",
                "created_at": iso(gateway),
                "expires_at": None,
                "revoked_at": None,
            }
        ]
        gateway.clock.advance(1)
        added = await operator.key("added", project="web shop")
        async with operator.user(added) as client:
            pages = await walked(client, "/v1/keys?limit=1", "next_page_url")
            assert pages == [[added["id"]], [static[0]["id"]]]
            assert await ids_of(client, f"/v1/keys?starting_after={static[0]['id']}") == []
            assert await ids_of(client, "/v1/keys?status=revoked") == []
        assert added["id"] not in str(await read(gateway.bob, "/v1/keys"))


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=x", "status=expired", "status=", "starting_after=%00", "ending_before="),
        *("starting_after=x", "starting_after=" + "k" * 400, "ending_before=key_01kb3v9zq4e8tq6j8x2m5n7r9s"),
    ],
)
async def test_bad_parameters_of_the_list_of_keys_are_refused_by_name(gateway: Running, query: str) -> None:
    error = error_of(await gateway.client.get(f"/v1/keys?{query}"), 400)
    assert (error["param"], error["code"]) == (query.partition("=")[0], "invalid_value")


# As the vendor's client reads it


async def test_a_failure_has_the_code_and_the_text_that_the_vendors_doctor_prints(gateway: Running) -> None:
    failed = await gateway.create(model="sandbox/fail", size="64x64")
    await gateway.finish(failed["id"])
    row = await read(gateway.client, f"/v1/requests/{failed['id']}")
    shown = await gateway.get(failed["id"])
    assert (row["status"], row["error_code"]) == ("upstream_failure", shown["error"]["code"])
    assert row["error_message"] == shown["error"]["message"]
    assert isinstance(row["duration_ms"], int)
