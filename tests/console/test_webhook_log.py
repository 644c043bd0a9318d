"""The log of deliveries in the console: every try with its answer, filters, one or all failed ones sent again."""

import re
from collections.abc import AsyncIterator
from html import unescape

import pytest
import sqlalchemy as sa
from console.conftest import Visitor
from fakes.receiver import Receiver
from fakes.server import Answer, serve
from harness import ALICE, Running
from webhooks.registration import HOUR_S, cancelled, get, register

from app.db.models import WebhookEndpoint

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"
PATH = "/console/webhooks/log"
AGAIN = f"{PATH}/again"


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def hook(receiver: Receiver) -> AsyncIterator[str]:
    async with serve(receiver) as url:
        yield f"{url}/hook"


async def page_of(visitor: Visitor, query: str = "", status: int = 200) -> str:
    page = await visitor.get(f"{PATH}{query}")
    assert page.status_code == status, page.text
    return page.text


def rows_of(page: str) -> list[str]:
    """The text of each delivery, its tries included."""
    return [unescape(re.sub(r"<[^>]+>", " ", row)) for row in re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)]


def ids_in(page: str) -> list[str]:
    return re.findall(r'action="/console/webhooks/log/(wh_\w+)/again"', page)


async def deliveries(gateway: Running, query: str = "") -> list[str]:
    return [entry["id"] for entry in (await get(gateway, f"/v1/webhook_deliveries{query}"))["data"]]


async def fail_all(gateway: Running, visitor: Visitor) -> None:
    """Try whatever is due until the gateway gives it up, which takes longer than a session lasts."""
    for _ in range(20):
        await gateway.worker.run_once()
        gateway.clock.advance(9 * HOUR_S)
    await visitor.sign_in(ALICE)


async def enable_all(gateway: Running) -> None:
    async with gateway.gateway.db.transaction() as session:
        await session.execute(sa.update(WebhookEndpoint).values(disabled_at=None, disabled_reason=None))


async def test_every_try_is_shown_with_its_answer(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    assert "Nothing was sent in the last 30 days." in await page_of(alice)
    await register(gateway, hook, name="the shop")
    receiver.script(Answer(500, HOSTILE), Answer(503, "sorry"))
    video = await cancelled(gateway, webhook_url=f"{hook}?token=x")
    not_tried = rows_of(await page_of(alice))
    assert all("not tried yet" in row and "Waiting" in row for row in not_tried)
    await gateway.worker.run_once()
    page = await page_of(alice)
    assert "<img" not in page
    rows = rows_of(page)
    assert len(rows) == 2
    assert any("the shop" in row for row in rows)
    assert any(f"with the request: {hook.rpartition('/')[0]}" in " ".join(row.split()) for row in rows)
    assert sorted(
        word for row in rows for word in ("answered 500", "answered 503", "sorry", HOSTILE) if word in row
    ) == [
        HOSTILE,
        "answered 500",
        "answered 503",
        "sorry",
    ]
    assert page.count(f'href="/console/videos/{video}"') == 2
    assert "token=x" not in page
    gateway.clock.advance(60)
    await gateway.worker.run_once()
    delivered = rows_of(await page_of(alice))
    assert all("Delivered" in row and "2 tries" in row and "204" in row for row in delivered)


async def test_filters_stand_in_the_address(gateway: Running, alice: Visitor, receiver: Receiver, hook: str) -> None:
    receiver.always = Answer(500)
    endpoint = await register(gateway, hook, ["video.failed"])
    await cancelled(gateway)
    await gateway.worker.run_once()
    gateway.clock.advance(3 * 86_400)
    await alice.sign_in(ALICE)
    await cancelled(gateway, webhook_url=hook)
    now = gateway.clock.now
    for query, same in (
        ("?state=pending", "?state=pending"),
        ("?state=delivered", "?state=delivered"),
        ("?state=&type=&endpoint=&since=", ""),
        ("?type=video.cancelled", "?event_type=video.cancelled"),
        (f"?endpoint={endpoint['id']}", f"?endpoint={endpoint['id']}"),
        (f"?since={now:%Y-%m-%dT%H:%M:%SZ}", f"?since={int(now.timestamp())}"),
        (f"?since={now:%Y-%m-%d}", f"?since={now:%Y-%m-%d}T00:00:00Z"),
        (f"?since={now:%Y-%m-%dT%H:%M}&state=pending", f"?since={now:%Y-%m-%dT%H:%M}:00Z&state=pending"),
    ):
        assert ids_in(await page_of(alice, query)) == await deliveries(gateway, same), query
    nothing = await page_of(alice, "?state=delivered")
    assert "Nothing matches." in nothing
    assert re.search(r'value="delivered" selected', nothing)


async def test_older_deliveries_are_a_page_away(gateway: Running, alice: Visitor, hook: str) -> None:
    await register(gateway, hook)
    for _ in range(27):
        await cancelled(gateway)
    first = await page_of(alice, "?state=pending")
    (older,) = re.findall(r'href="([^"]*after=[^"]*)"', first)
    rest = (await alice.get(unescape(older))).text
    assert (len(ids_in(first)), len(ids_in(rest))) == (25, 2)
    assert ids_in(first) + ids_in(rest) == await deliveries(gateway, "?limit=50")
    assert "after=" not in "".join(re.findall(r'class="button" href="[^"]*"', rest))
    end = await page_of(alice, f"?after={ids_in(rest)[-1]}")
    assert "There are no older deliveries." in end


@pytest.mark.parametrize(
    ("query", "param", "status"),
    [
        ("?state=broken", "state", 400),
        ("?type=video.exploded", "type", 400),
        ("?since=yesterday", "since", 400),
        ("?since=1764000000000", "since", 400),
        ("?since=%00", "since", 400),
        ("?endpoint=whe_x", "endpoint", 404),
        ("?endpoint=%00", "endpoint", 404),
        ("?endpoint=whe_01kb3v9zq4e8tq6j8x2m5n7r9s", "endpoint", 404),
        ("?project=x", None, 400),
    ],
)
async def test_wrong_filters_are_refused_at_their_field(
    gateway: Running, alice: Visitor, query: str, param: str | None, status: int
) -> None:
    page = await page_of(alice, query, status)
    assert (f'id="h-{param}" role="alert"' if param else '<p class="problem" role="alert">') in page
    if query == "?since=yesterday":
        assert 'value="yesterday"' in page


async def test_one_delivery_is_sent_again_under_its_id(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    receiver.always = Answer(500)
    await register(gateway, hook)
    await cancelled(gateway)
    await fail_all(gateway, alice)
    (delivery,) = ids_in(await page_of(alice, "?state=failed"))
    address = f"{PATH}/{delivery}/again"
    sent = {"csrf": await alice.token(), "state": "failed", "type": ""}
    refused = await alice.post(address, sent)
    assert (refused.status_code, "the endpoint is disabled" in refused.text) == (409, True)
    assert ids_in(refused.text) == [delivery], "the list stays"
    await enable_all(gateway)
    receiver.always, before = None, len(receiver.received)
    again = await alice.post(address, sent)
    assert (again.status_code, again.headers["location"]) == (303, f"{PATH}?state=failed&said=delivery_sent")
    assert "The delivery is sent again now." in (await alice.get(again.headers["location"])).text
    await gateway.worker.run_once()
    assert [call.id for call in receiver.received[before:]] == [delivery]
    assert "Delivered" in rows_of(await page_of(alice))[0]


async def test_all_failed_are_counted_first_and_then_sent(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    receiver.always = Answer(500)
    endpoint = await register(gateway, hook)
    start = gateway.clock.now
    gone = await cancelled(gateway, webhook_url=hook)
    await cancelled(gateway, webhook_url=hook)
    await fail_all(gateway, alice)
    assert (await gateway.client.delete(f"/v1/videos/{gone}")).status_code == 200
    since = f"{start:%Y-%m-%dT%H:%M:%SZ}"
    counted = await alice.get(f"{AGAIN}?since={since}")
    assert "1 delivery would be sent again" in counted.text
    assert "2 to disabled endpoints" in counted.text
    assert "1 about videos that were deleted" in counted.text
    assert len(await deliveries(gateway, "?state=failed")) == 4, "nothing is sent by counting"
    await enable_all(gateway)
    assert "3 deliveries would be sent again" in (await alice.get(f"{AGAIN}?since={since}")).text
    only = await alice.get(f"{AGAIN}?since={since}&endpoint={endpoint['id']}")
    assert "2 deliveries would be sent again" in only.text
    token = await alice.token()
    done = await alice.post(AGAIN, {"csrf": token, "since": since, "endpoint": endpoint["id"]})
    assert "2 deliveries are sent again now." in done.text
    done = await alice.post(AGAIN, {"csrf": token, "since": since})
    assert "1 delivery is sent again now." in done.text
    assert "1 about videos that were deleted" in done.text
    receiver.always, before = None, len(receiver.received)
    await gateway.worker.run_once()
    assert len(receiver.received) == before + 3
    empty = await alice.get(f"{AGAIN}?since={since}")
    assert "Nothing has failed since then that could be sent." in empty.text


async def test_more_than_a_thousand_are_sent_in_turns(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    since = f"{gateway.clock.now:%Y-%m-%dT%H:%M:%SZ}"
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    disabled = await gateway.client.post(f"/v1/webhook_endpoints/{endpoint['id']}", json={"enabled": False})
    assert disabled.status_code == 200
    async with gateway.gateway.db.transaction() as session:
        await session.execute(
            sa.text("""
            insert into deliveries (id, event_id, event_type, project_id, video_id, endpoint_id, queue_key, style, data,
              state, due_at, tries, created_at, ended_at)
            select id || n, event_id, event_type, project_id, video_id || n, endpoint_id, queue_key, style, data,
              state, due_at, tries, created_at, ended_at
            from deliveries cross join generate_series(1, 1004) as n
            """)
        )
    assert "1,005 to disabled endpoints" in (await alice.get(f"{AGAIN}?since={since}")).text
    await enable_all(gateway)
    counted = (await alice.get(f"{AGAIN}?since={since}")).text
    assert "1,005 deliveries would be sent again" in counted
    assert "Send 1,000 again" in counted
    sent = {"csrf": await alice.token(), "since": since}
    first = (await alice.post(AGAIN, sent)).text
    assert "1,000 deliveries are sent again now." in first
    assert "There are more." in first
    second = (await alice.post(AGAIN, sent)).text
    assert "5 deliveries are sent again now." in second
    assert "There are more." not in second


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"since": ""}, 400),
        ({"since": "yesterday"}, 400),
        ({"since": HOSTILE}, 400),
        ({"since": "2026-11-01", "type": "x"}, 400),
        ({"since": "2026-11-01", "endpoint": "whe_x"}, 404),
    ],
)
async def test_wrong_times_and_filters_send_nothing(
    gateway: Running, alice: Visitor, given: dict[str, str], status: int
) -> None:
    counted = await alice.client.get(AGAIN, params=given)
    sent = await alice.post(AGAIN, {"csrf": await alice.token(), **given})
    for page in (counted, sent):
        assert page.status_code == status
        assert 'role="alert"' in page.text
        assert "<img" not in page.text
    if given["since"] == "yesterday":
        assert 'value="yesterday"' in counted.text


async def test_a_delivery_of_another_project_is_not_sent(
    gateway: Running, alice: Visitor, receiver: Receiver, hook: str
) -> None:
    receiver.always = Answer(500)
    body = {"prompt": "x", "model": "sandbox/slow", "webhook_url": hook}
    video = (await gateway.bob.post("/v1/videos", json=body)).json()
    assert (await gateway.bob.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await fail_all(gateway, alice)
    (theirs,) = (await gateway.bob.get("/v1/webhook_deliveries")).json()["data"]
    assert ids_in(await page_of(alice)) == []
    token = await alice.token()
    assert (await alice.post(f"{PATH}/{theirs['id']}/again", {"csrf": token})).status_code == 404
    assert (await alice.post(f"{PATH}/nothing/again", {"csrf": token})).status_code == 404
    assert "0 deliveries are sent" in (await alice.post(AGAIN, {"csrf": token, "since": "2026-01-01"})).text
    (still,) = (await gateway.bob.get("/v1/webhook_deliveries")).json()["data"]
    assert still["state"] == "failed"


async def test_the_operator_sees_all_without_paths_and_answers_and_sends_nothing(
    gateway: Running, alice: Visitor, operator: Visitor, receiver: Receiver, hook: str
) -> None:
    receiver.always = Answer(500, "sekret-answer")
    endpoint = await register(gateway, f"{hook}/sekret-endpoint", name="sekret-name")
    token = {"webhook_url": f"{hook}/sekret-path?token=sekret", "webhook_secret": "sekret-secret"}
    await cancelled(gateway, **token)
    body = {"prompt": "x", "model": "sandbox/slow", **token}
    video = (await gateway.bob.post("/v1/videos", json=body)).json()
    assert (await gateway.bob.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await gateway.worker.run_once()
    page = await page_of(operator)
    rows = [" ".join(row.split()) for row in rows_of(page)]
    assert len(rows) == 3
    assert "sekret" not in page
    assert all("500" in row and "answered 500" in row for row in rows)
    assert sum(hook.rpartition("/")[0] in row for row in rows) == 2
    assert sum(endpoint["id"] in row for row in rows) == 1
    assert ids_in(page) == []
    assert "Send all failed" not in page
    projects = set(re.findall(r"\?project=(proj\w+|[\w-]+)", page))
    assert len(projects) == 2
    counts = [len(rows_of(await page_of(operator, f"?project={one}"))) for one in projects]
    assert sorted(counts) == [1, 2]
    assert len(rows_of(await page_of(operator, f"?endpoint={endpoint['id']}&state=pending"))) == 1
    assert 'id="h-project" role="alert"' in await page_of(operator, "?project=nowhere", 404)
    assert 'id="h-endpoint" role="alert"' in await page_of(operator, "?endpoint=%00", 400)
    assert (await operator.get(f"{AGAIN}?since=2026-01-01")).status_code == 403
    sent = {"csrf": await operator.token(), "since": "2026-01-01"}
    (first, *_) = ids_in(await page_of(alice))
    for path in (AGAIN, f"{PATH}/{first}/again"):
        assert (await operator.post(path, sent)).status_code == 403
    assert "sekret-answer" in await page_of(alice)
