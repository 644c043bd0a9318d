"""Tries of a delivery: failures, back-off over 72 hours, and endpoints that are disabled."""

import asyncio
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from fakes.receiver import Flood, Receiver
from fakes.server import Answer, Fault, Hang, Reset, closed_port, serve
from harness import Running, StartGateway
from webhooks.registration import HOUR_S, cancelled, get, log_of, post, register, sdk_of

from app.webhooks import deliveries

pytestmark = pytest.mark.anyio


FAULTS: list[tuple[str, Fault | None, int | None, str]] = [
    ("500", Answer(500, "broken \x00 here"), 500, "answered 500"),
    ("404", Answer(404), 404, "answered 404"),
    ("302", Answer(302, headers={"location": "http://127.0.0.2:9/"}), 302, "answered 302; redirects are not followed"),
    ("reset", Reset(), None, "no answer: "),
    ("nothing", None, None, "no answer: "),
    ("hangs", Hang(), None, "no answer within 0.3 s"),
]


@pytest.mark.parametrize(("fault", "status", "error"), [entry[1:] for entry in FAULTS], ids=[e[0] for e in FAULTS])
async def test_a_receiver_that_fails_is_tried_again_under_the_same_id(
    start_gateway: StartGateway, receiver: Receiver, hook: str, fault: Fault | None, status: int | None, error: str
) -> None:
    async with start_gateway(webhook_timeout_s=0.3) as gateway:
        endpoint = await register(gateway, hook if fault else closed_port())
        if fault:
            receiver.script(fault)
        await cancelled(gateway)
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        (first,) = delivery["tries"]
        assert delivery["state"] == "pending"
        assert (first["status_code"], first["at"]) == (status, int(gateway.clock().timestamp()))
        assert first["error"].startswith(error)
        assert first["answer"] == (("broken  here" if status == 500 else "") if status else None)
        assert (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}"))["failing_since"] == first["at"]
        await post(gateway.client, f"/v1/webhook_endpoints/{endpoint['id']}", url=hook)

        await gateway.worker.run_once()  # not due yet
        assert len((await log_of(gateway, endpoint))[0]["tries"]) == 1
        gateway.clock.advance(6)
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        assert delivery["state"] == "delivered"
        assert [entry["status_code"] for entry in delivery["tries"]] == [status, 204]
        assert {received.id for received in receiver.received} == {delivery["id"]}
        assert len({received.body for received in receiver.received}) == 1
        assert (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}"))["failing_since"] is None


async def test_a_redirect_is_not_followed(gateway: Running, receiver: Receiver, hook: str) -> None:
    elsewhere = Receiver()
    async with serve(elsewhere, host="127.0.0.2") as url:
        receiver.always = Answer(307, headers={"location": f"{url}/inside"})
        await register(gateway, hook)
        await cancelled(gateway)
        await gateway.worker.run_once()
    assert (len(receiver.received), elsewhere.received) == (1, [])


@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_answer_is_not_read_to_its_end(
    gateway: Running, receiver: Receiver, hook: str, status: int
) -> None:
    flood = Flood(status)
    receiver.script(flood)
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    (delivery,) = await log_of(gateway, endpoint)
    assert delivery["tries"][0]["answer"] == "z" * 2_048
    assert delivery["tries"][0]["status_code"] == status
    assert delivery["state"] == ("delivered" if status == 200 else "pending")
    async with asyncio.timeout(10):
        await flood.cut_off.wait()


async def test_gaps_grow_for_72_hours_then_the_endpoint_is_disabled_until_enabled(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    endpoint = await register(gateway, hook)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    receiver.always = Answer(503, "down for maintenance")
    start = gateway.clock()
    await cancelled(gateway)
    moments = []
    for _ in range(50):
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        moments.append((gateway.clock() - start).total_seconds())
        if delivery["state"] != "pending":
            break
        async with gateway.gateway.db.transaction() as session:
            gateway.clock.now = await session.scalar(sa.text("select due_at from deliveries"))
    assert delivery["state"] == "failed"
    assert len(delivery["tries"]) == len(moments) == len(receiver.received)
    assert moments[-1] == 72 * HOUR_S
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    expected = [*deliveries.GAPS_S, *[deliveries.GAPS_S[-1]] * len(gaps)]
    assert all(0.89 * e <= gap <= 1.11 * e for gap, e in zip(gaps[:-1], expected, strict=False))
    assert 14 <= len(moments) <= 19
    assert {received.id for received in receiver.received} == {delivery["id"]}

    shown = await get(gateway, path)
    assert shown["enabled"] is False
    assert shown["disabled_reason"] == (
        f"nothing was delivered since {start:%Y-%m-%d %H:%M} UTC; the last try: answered 503"
    )
    receiver.always = None
    count = len(receiver.received)
    await cancelled(gateway)  # no delivery, now or later
    await gateway.worker.run_once()
    again = f"{path}/deliveries/{delivery['id']}/redeliver"
    assert (await post(gateway.client, again, 409))["error"]["code"] == "webhook_endpoint_disabled"

    assert (await post(gateway.client, path, enabled=True))["enabled"] is True
    assert (await get(gateway, path))["disabled_reason"] is None
    await gateway.worker.run_once()
    assert len(receiver.received) == count
    later = await cancelled(gateway)
    await gateway.worker.run_once()
    assert receiver.received[-1].json["data"]["id"] == later

    assert (await post(gateway.client, again, 202))["state"] == "pending"
    await gateway.worker.run_once()
    assert receiver.received[-1].id == delivery["id"]
    assert (await log_of(gateway, endpoint))[-1]["state"] == "delivered"


async def test_a_success_in_between_keeps_an_endpoint_alive(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    receiver.always = Answer(500)
    await cancelled(gateway)
    for hour in range(80):
        await gateway.worker.run_once()
        if hour == 40:
            receiver.script(Answer(200))
            await cancelled(gateway)
            await gateway.worker.run_once()
        gateway.clock.advance(HOUR_S)
    assert (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}"))["enabled"] is True
    assert [entry["state"] for entry in await log_of(gateway, endpoint)] == ["delivered", "failed"]


async def test_a_new_url_or_its_project_enables_an_endpoint(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    await cancelled(gateway)
    off = await post(gateway.client, path, enabled=False)
    assert (off["enabled"], off["disabled_reason"]) == (False, "disabled by its project")
    await gateway.worker.run_once()
    await cancelled(gateway)
    await gateway.worker.run_once()
    assert receiver.received == []
    assert [entry["state"] for entry in await log_of(gateway, endpoint)] == ["failed"]
    assert (await post(gateway.client, path, name="renamed"))["enabled"] is False
    assert (await post(gateway.client, path, url=f"{hook}/new"))["enabled"] is True
    await cancelled(gateway)
    await gateway.worker.run_once()
    assert [received.path for received in receiver.received] == ["/hook/new"]


async def test_a_delivery_can_be_repeated_on_request(gateway: Running, receiver: Receiver, hook: str) -> None:
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    await gateway.worker.run_once()
    gateway.clock.advance(90)
    (delivery,) = await log_of(gateway, endpoint)
    path = f"/v1/webhook_endpoints/{endpoint['id']}/deliveries/{delivery['id']}/redeliver"
    async with sdk_of(gateway) as client:
        answer: Any = await client.post(path.removeprefix("/v1"), cast_to=object)
        assert (answer["id"], answer["state"], answer["ended_at"]) == (delivery["id"], "pending", None)
    receiver.script(Answer(500))
    await gateway.worker.run_once()
    gateway.clock.advance(6)
    await gateway.worker.run_once()
    (delivery,) = await log_of(gateway, endpoint)
    assert [entry["status_code"] for entry in delivery["tries"]] == [204, 500, 204]
    assert delivery["state"] == "delivered"
    assert {received.id for received in receiver.received} == {delivery["id"]}
