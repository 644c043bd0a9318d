"""All deliveries of a project in one list, with filters, and those that failed sent again together."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fakes.receiver import Receiver
from fakes.server import Answer
from harness import Running, StartGateway
from money import ADMIN, operator_of
from webhooks.registration import HOUR_S, cancelled, get, post, register

from app import ids
from app.db.models import Delivery, WebhookEndpoint
from app.webhooks.deliveries import MAX_COUNTED, MAX_REDELIVERED

pytestmark = pytest.mark.anyio

PATH, AGAIN = "/v1/webhook_deliveries", "/v1/webhook_deliveries/redeliver_failed"


async def videos_of(gateway: Running, query: str = "") -> list[str]:
    return [entry["video_id"] for entry in (await get(gateway, f"{PATH}{query}"))["data"]]


async def fail_all(gateway: Running) -> None:
    """Try whatever is due until the gateway gives it up."""
    for _ in range(20):
        await gateway.worker.run_once()
        gateway.clock.advance(9 * HOUR_S)


async def test_the_list_has_deliveries_to_endpoints_and_to_addresses_of_requests(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    endpoint = await register(gateway, hook)
    first = await cancelled(gateway)
    second = await cancelled(gateway, webhook_url=f"{hook}?token=x")
    await gateway.worker.run_once()
    assert await videos_of(gateway) == [second, second, first]
    assert await videos_of(gateway, f"?endpoint={endpoint['id']}") == [second, first]
    page = await get(gateway, f"{PATH}?limit=2")
    assert (page["has_more"], [entry["state"] for entry in page["data"]]) == (True, ["delivered"] * 2)
    assert await videos_of(gateway, f"?limit=2&after={page['last_id']}") == [first]
    assert {entry["webhook_endpoint_id"] for entry in page["data"]} == {endpoint["id"], None}
    assert all(len(entry["tries"]) == 1 for entry in page["data"])
    assert (await gateway.bob.get(PATH)).json()["data"] == [], "another project's"


async def test_filters_narrow_the_list(gateway: Running, receiver: Receiver, hook: str) -> None:
    receiver.always = Answer(500)
    await register(gateway, hook, ["video.failed"])
    old = await cancelled(gateway)
    await gateway.worker.run_once()
    gateway.clock.advance(60)
    new = await cancelled(gateway, webhook_url=hook)
    assert await videos_of(gateway, "?state=delivered") == []
    assert await videos_of(gateway, "?state=pending") == [new, new, old]
    assert await videos_of(gateway, "?event_type=video.cancelled") == [new], "the endpoint gets it as failed"
    assert await videos_of(gateway, "?event_type=video.failed&state=pending") == [new, old]
    now = gateway.clock.now
    for since in (str(int(now.timestamp())), now.isoformat().replace("+00:00", "Z"), now.isoformat()):  # + is a blank
        assert await videos_of(gateway, f"?since={since}") == [new, new]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?stat=failed", "stat"),
        ("?status=failed", "status"),
        ("?state=failed&state=pending", "state"),
        ("?state=broken", "state"),
        ("?event_type=video.exploded", "event_type"),
        ("?since=yesterday", "since"),
        ("?since=0001-01-01T00:00:00%2B12:00", "since"),
        ("?since=9999-12-31T23:59:59-12:00", "since"),
        ("?since=1e400", "since"),
        ("?since=1764000000000", "since"),
        ("?since=2026-11-01T00:00:00", "since"),
        ("?limit=101", "limit"),
        ("?%00=1", "\x00"),
    ],
)
async def test_wrong_filters_are_refused_by_name(gateway: Running, query: str, param: str) -> None:
    refused = await gateway.client.get(PATH + query)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text


async def test_an_unknown_filter_names_the_nearest_and_needs_a_key(gateway: Running) -> None:
    refused = (await gateway.client.get(f"{PATH}?stat=failed")).json()["error"]
    assert (refused["code"], "did you mean state?" in refused["message"]) == ("unknown_parameter", True)
    assert (await gateway.client.get(f"{PATH}?api-version=2026-01-01")).status_code == 200, "clients of Azure send it"
    anybody = await gateway.client.get(f"{PATH}?stat=failed", headers={"authorization": "Bearer wrong"})
    assert anybody.status_code == 401
    for unknown in ("whe_x", ids.new("whe"), "%00"):
        assert (await gateway.client.get(f"{PATH}?endpoint={unknown}")).status_code == 404


async def test_failed_deliveries_are_sent_again_under_the_same_id(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    since = int(gateway.clock.now.timestamp())
    await register(gateway, hook, name="first")
    receiver.always = Answer(500)
    video = await cancelled(gateway, webhook_url=hook)
    await fail_all(gateway)
    async with gateway.gateway.db.transaction() as session:  # which the failures have disabled
        await session.execute(sa.update(WebhookEndpoint).values(disabled_at=None, disabled_reason=None))
    failed = (await get(gateway, f"{PATH}?state=failed"))["data"]
    assert len(failed) == 2
    receiver.always, before = None, len(receiver.received)
    done = await post(gateway.client, AGAIN, 202, since=since)
    nothing = {"endpoint_disabled": 0, "video_deleted": 0}
    assert done == {
        "object": "webhook_delivery.redelivered",
        "redelivered": 2,
        "has_more": False,
        "left_out": nothing,
    }
    await gateway.worker.run_once()
    assert sorted(call.id for call in receiver.received[before:]) == sorted(entry["id"] for entry in failed)
    assert await videos_of(gateway, "?state=delivered") == [video, video]
    again = await post(gateway.client, AGAIN, 202, since=since)
    assert again["redelivered"] == 0


async def test_disabled_endpoints_and_erased_videos_are_left_out_and_counted(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    since = int(gateway.clock.now.timestamp())
    receiver.always = Answer(500)
    await register(gateway, hook)
    gone = await cancelled(gateway, webhook_url=hook)
    kept = await cancelled(gateway, webhook_url=hook)
    await fail_all(gateway)
    assert (await gateway.client.delete(f"/v1/videos/{gone}")).status_code == 200
    done = await post(gateway.client, AGAIN, 202, since=since)
    assert (done["redelivered"], done["has_more"]) == (1, False)
    assert done["left_out"] == {"endpoint_disabled": 2, "video_deleted": 1}
    assert await videos_of(gateway, "?state=pending") == [kept]


async def test_one_request_sends_a_thousand_and_says_that_there_are_more(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    since = int(gateway.clock.now.timestamp())
    endpoint = await register(gateway, hook)
    other = await register(gateway, hook)
    await cancelled(gateway)
    async with gateway.gateway.db.transaction() as session:
        made = (await session.scalars(sa.select(Delivery).where(Delivery.endpoint_id == endpoint["id"]))).one()
        columns = {column.key: getattr(made, column.key) for column in Delivery.__table__.columns}
        failed: dict[str, Any] = {"state": "failed", "ended_at": gateway.clock.now}
        many = [{**columns, **failed, "id": ids.new("wh"), "video_id": ids.new("video")} for _ in range(1_005)]
        await session.execute(sa.insert(Delivery), many)
    assert (await post(gateway.bob, AGAIN, 202, since=since))["redelivered"] == 0
    assert (await post(gateway.client, AGAIN, 202, since=since, endpoint=other["id"]))["redelivered"] == 0
    assert (await post(gateway.client, AGAIN, 202, since=since + 1))["redelivered"] == 0
    first = await post(gateway.client, AGAIN, 202, since=since, endpoint=endpoint["id"])
    assert (first["redelivered"], first["has_more"]) == (MAX_REDELIVERED, True)
    second = await post(gateway.client, AGAIN, 202, since=since, event_type="video.cancelled")
    assert (second["redelivered"], second["has_more"]) == (5, False)


async def test_a_repetition_ends_however_many_cannot_be_sent(gateway: Running, receiver: Receiver, hook: str) -> None:
    since = int(gateway.clock.now.timestamp())
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    disabled = await gateway.client.post(f"/v1/webhook_endpoints/{endpoint['id']}", json={"enabled": False})
    assert disabled.status_code == 200, disabled.text
    own = ("id", "video_id")
    columns = ", ".join(column.key for column in Delivery.__table__.columns if column.key not in own)
    many = f"insert into deliveries (id, video_id, {columns}) select id || n, video_id || n, {columns} "
    many += f"from deliveries cross join generate_series(1, {MAX_COUNTED}) as n returning id"
    await gateway.gateway.db.one(many.encode(), {})
    done = await post(gateway.client, AGAIN, 202, since=since)
    assert (done["redelivered"], done["has_more"]) == (0, False)
    assert done["left_out"]["endpoint_disabled"] == MAX_COUNTED


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "since"),
        ({"since": "yesterday"}, 400, "since"),
        ({"since": 1e300}, 400, "since"),
        ({"since": 1_764_000_000, "event_type": "x"}, 400, "event_type"),
        ({"since": 1_764_000_000, "endpoints": "x"}, 400, "endpoints"),
        ({"since": 1_764_000_000, "endpoint": "whe_x"}, 404, "webhook_endpoint_id"),
    ],
)
async def test_wrong_bodies_are_refused(gateway: Running, body: dict[str, Any], status: int, param: str) -> None:
    refused = await gateway.client.post(AGAIN, json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text


async def test_an_operator_sees_the_deliveries_of_all_projects_without_paths_and_answers(
    start_gateway: StartGateway, receiver: Receiver, hook: str
) -> None:
    receiver.always = Answer(500, "sekret-answer")
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        endpoint = await register(gateway, hook)
        token = {"webhook_url": f"{hook}/sekret-path?token=sekret", "webhook_secret": "sekret-secret"}
        mine = await cancelled(gateway, **token)
        video = (await gateway.bob.post("/v1/videos", json={"prompt": "x", "model": "sandbox/slow", **token})).json()
        assert (await gateway.bob.delete(f"/v1/videos/{video['id']}")).status_code == 200
        await gateway.worker.run_once()
        page = await operator.ask("GET", "webhook_deliveries")
        assert [entry["video_id"] for entry in page["data"]] == [video["id"], mine, mine]
        assert "sekret" not in str(page)
        receivers = {entry["webhook_endpoint_id"]: entry["receiver"] for entry in page["data"]}
        assert receivers == {None: hook.rpartition("/")[0], endpoint["id"]: None}
        assert [tried["status_code"] for entry in page["data"] for tried in entry["tries"]] == [500] * 3
        project = page["data"][0]["project"]
        for query, found in (
            (f"project={project}", 1),
            ("state=pending", 3),
            ("state=failed", 0),
            (f"endpoint={endpoint['id']}", 1),
            ("event_type=video.cancelled&limit=2", 2),
            (f"since={int((gateway.clock.now + timedelta(seconds=1)).timestamp())}", 0),
            (f"after={page['last_id']}", 0),
        ):
            assert len((await operator.ask("GET", f"webhook_deliveries?{query}"))["data"]) == found, query
        await operator.ask("GET", "webhook_deliveries?projekt=x", status=400)
        await operator.ask("GET", "webhook_deliveries?project=%00", status=400)
