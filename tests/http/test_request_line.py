"""The line of a request in the log: it names the video, key, project, model and dialect, and leads to the job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from harness import ALICE, ORIGIN, Running, StartGateway
from money import ADMIN, operator_of
from structlog.testing import capture_logs

pytestmark = pytest.mark.anyio

MODEL = "sandbox/testcard"


@contextmanager
def lines() -> Iterator[list[dict[str, Any]]]:
    """The lines of requests that are logged meanwhile."""
    found: list[dict[str, Any]] = []
    with capture_logs() as logs:
        yield found
    found += [dict(line) for line in logs if line["event"] == "request"]


async def line_of(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> dict[str, Any]:
    """Send a request; returns its line, without its duration."""
    with lines() as found:
        response = await client.request(method, path, **request)
    (line,) = [line for line in found if line["request"] == response.headers["x-request-id"]]
    assert line["status"] == response.status_code
    return {name: value for name, value in line.items() if name not in ("ms", "event", "log_level", "method")}


def named(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in ("video", "model", "dialect")}


@pytest.mark.parametrize("place", CASES)
async def test_a_create_and_a_read_name_their_video_in_every_dialect(gateway: Running, place: str) -> None:
    case: DialectCase = CASES[place]
    with lines() as found:
        created = await gateway.client.post(case.create, json=case.body)
        video_id = case.id_of(created.json())
        read = await gateway.client.get(case.get.format(id=video_id))
    assert [line["request"] for line in found] == [answer.headers["x-request-id"] for answer in (created, read)]
    video = await gateway.gateway.db.one(b"select * from videos where id = %(id)s", {"id": video_id.rpartition(":")[2]})
    assert video is not None
    assert video["request_id"] == created.headers["x-request-id"]
    for line in found:
        assert {name: line[name] for name in ("video", "project", "key", "model", "dialect")} == {
            "video": video["id"],
            "project": video["project_id"],
            "key": video["key_id"],
            "model": video["model"],
            "dialect": video["dialect"],
        }


async def test_every_call_about_a_video_names_it(gateway: Running) -> None:
    created = await gateway.create(model=MODEL)
    video = await gateway.finish(created["id"])
    expected = {"video": video["id"], "model": MODEL, "dialect": "openai"}
    path, alice = f"/v1/videos/{video['id']}", gateway.client
    for method, called in (
        ("GET", path),
        ("GET", f"{path}?wait=1"),
        ("GET", f"{path}/content"),
        ("HEAD", f"{path}/content"),
        ("GET", f"{path}/events"),
        ("GET", f"{path}/deliveries"),
    ):
        assert named(await line_of(alice, method, called)) == expected, called
    signed = video["output"]["url"].removeprefix(ORIGIN)
    async with httpx.AsyncClient(transport=alice._transport, base_url=ORIGIN) as viewer:
        played = await line_of(viewer, "GET", signed)
    mine = await line_of(alice, "GET", path)
    assert named(played) == {**expected, "dialect": None}
    assert (played["project"], played.get("key")) == (mine["project"], None)
    assert "sig=" not in str(played)
    assert (await line_of(alice, "GET", f"/v1/requests/{video['id']}"))["video"] == video["id"]
    assert named(await line_of(alice, "DELETE", path)) == expected
    listed = await line_of(alice, "GET", "/v1/videos")
    assert (listed["key"], listed.get("video")) == (mine["key"], None)


async def test_errors_name_what_is_known(gateway: Running) -> None:
    alice, video = gateway.client, await gateway.create(model=MODEL)
    path = f"/v1/videos/{video['id']}"
    unknown = await line_of(alice, "POST", "/v1/videos", json={"prompt": "secret wish", "model": "no/such"})
    assert (unknown["status"], named(unknown)["model"], unknown.get("video")) == (404, "no/such", None)
    assert (unknown["project"], unknown["key"]) == ((mine := await line_of(alice, "GET", path))["project"], mine["key"])
    wrong = await line_of(alice, "POST", "/v1/videos", json={"prompt": "secret wish", "model": MODEL, "seconds": "x"})
    assert (wrong["status"], wrong["model"], wrong["key"]) == (400, MODEL, mine["key"])
    assert "secret" not in str([unknown, wrong])
    foreign = await line_of(gateway.bob, "GET", path)
    assert (foreign["status"], foreign["video"], foreign.get("model")) == (404, video["id"], None)
    assert foreign["project"] != mine["project"], "of the caller"
    for odd in ("video_x", "x" * 300, "video_" + "%0A" * 26):
        assert "video" not in await line_of(alice, "GET", f"/v1/videos/{odd}")
    refused = await line_of(alice, "GET", path, headers={"authorization": "Bearer sk-wrong-key"})
    assert (refused["status"], refused["video"], refused.get("project"), refused.get("key")) == (
        401,
        video["id"],
        *2 * [None],
    )
    assert "wrong-key" not in str(refused)
    assert ALICE not in str([unknown, wrong, foreign, mine])
    assert named(await line_of(alice, "GET", "/no/such")) == dict.fromkeys(("video", "model", "dialect"))


async def test_a_remix_names_what_it_makes_and_a_refused_one_its_source(gateway: Running) -> None:
    source = await gateway.finish((await gateway.create(model=MODEL))["id"])
    path, body = f"/v1/videos/{source['id']}/remix", {"prompt": "bluer"}
    refused = await line_of(gateway.client, "POST", path, json={**body, "n": 1_000})
    assert (refused["status"], refused["video"]) == (400, source["id"])
    with lines() as found:
        response = await gateway.client.post(path, json=body)
    assert response.status_code == 202, response.text
    assert found[0]["video"] == response.json()["id"] != source["id"]


async def test_a_repeated_create_names_the_video_which_keeps_its_first_request(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        send = {"json": {"prompt": "a boat", "model": MODEL}, "headers": {"idempotency-key": "once"}}
        first = await line_of(gateway.client, "POST", "/v1/videos", **send)
        again = await line_of(gateway.client, "POST", "/v1/videos", **send)
        assert (again["video"], again["model"]) == (first["video"], MODEL)
        assert again["request"] != first["request"]
        shown = await operator.ask("GET", f"videos/{first['video']}")
        assert shown["request_id"] == first["request"]
        assert (await line_of(operator.client, "GET", f"/admin/v1/videos/{first['video']}"))["video"] == first["video"]


async def test_a_purged_video_keeps_the_id_of_its_request(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        created = await line_of(gateway.client, "POST", "/v1/videos", json={"prompt": "a boat", "model": MODEL})
        await gateway.finish(created["video"])
        assert (await gateway.client.delete(f"/v1/requests/{created['video']}/payloads")).status_code == 200
        for _ in range(2):  # purged, then deleted
            assert (await operator.ask("GET", f"videos/{created['video']}"))["request_id"] == created["request"]
            assert (await gateway.client.delete(f"/v1/videos/{created['video']}")).status_code in (200, 404)


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        ({"x-request-id": "from-nginx"}, "from-nginx"),
        ({"x-client-request-id": "app-1", "x-request-id": "from-nginx"}, "app-1"),
        ({"x-request-id": "a\tb\x85c"}, "a?b?c"),
        ({"x-request-id": "a" * 5_000}, "a" * 200),
        ({"x-request-id": ""}, None),
        ({}, None),
    ],
)
async def test_an_id_of_the_client_is_logged_beside_ours(
    gateway: Running, sent: dict[str, str], logged: str | None
) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    line = await line_of(gateway.client, "GET", "/v1/videos", headers=headers)
    assert line.get("client_request") == logged
    assert line["request"].startswith("req_")


async def test_the_name_of_a_model_is_bounded_and_printable(gateway: Running) -> None:
    named_model = "a\x1b[31m\nb\u2028\u202e" + "c" * 5_000
    line = await line_of(gateway.client, "POST", "/v1/videos", json={"prompt": "x", "model": named_model})
    assert line["status"] in (400, 404)
    assert line["model"] == ("a?[31m?b??" + "c" * 5_000)[:200]


async def test_a_cancelled_video_has_ended_in_the_log_too(gateway: Running) -> None:
    with capture_logs() as logs:
        created = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": MODEL})
        gateway.clock.advance(12.5)
        await gateway.client.delete(f"/v1/videos/{created.json()['id']}")
    (ended,) = [line for line in logs if line["event"] == "video ended"]
    assert (ended["video"], ended["request"]) == (created.json()["id"], created.headers["x-request-id"])
    assert (ended["status"], ended["code"], ended["seconds"]) == ("failed", "cancelled", 12.5)
