"""Deliveries with several workers, killed workers and thousands of dead endpoints."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes.receiver import Receiver
from fakes.server import Hang, serve
from harness import ALICE, Running, StartGateway, another_worker
from processes import served
from webhooks.registration import TYPES, cancelled, log_of, post, register

from app.db.models import Delivery
from app.settings import Settings
from app.webhooks import deliveries

pytestmark = pytest.mark.anyio

LEASE_S = Settings.model_fields["webhook_timeout_s"].default + Settings.model_fields["lease_s"].default


async def test_an_event_is_written_in_the_transaction_of_its_end(
    start_gateway: StartGateway, receiver: Receiver, hook: str
) -> None:
    """One process ends the video and is gone; another delivers."""
    async with start_gateway() as gateway:
        endpoint = await register(gateway, hook)
        video_id = await cancelled(gateway)
        (before,) = await log_of(gateway, endpoint)
        assert (before["state"], before["tries"]) == ("pending", [])
    async with start_gateway() as gateway:
        await gateway.worker.run_once()
        (received,) = receiver.received
        assert (received.id, received.json["data"]["id"]) == (before["id"], video_id)
        assert received.json["id"] == before["event_id"]


async def test_deliveries_of_a_dead_worker_are_taken_over(
    start_gateway: StartGateway, receiver: Receiver, hook: str
) -> None:
    hang = Hang()
    receiver.script(hang)
    async with start_gateway(shutdown_grace_s=0) as gateway:
        endpoint = await register(gateway, hook)
        await cancelled(gateway)
        running = asyncio.create_task(gateway.worker.run())
        await hang.reached.wait()
        gateway.worker.stop()
        await running
    async with start_gateway() as gateway:
        await gateway.worker.run_once()
        assert len(receiver.received) == 1  # the lease is not over
        gateway.clock.advance(LEASE_S)
        await gateway.worker.run_once()
        (delivery,) = await log_of(gateway, endpoint)
        assert [received.id for received in receiver.received] == [delivery["id"]] * 2
        assert delivery["state"] == "delivered"


@pytest.mark.slow
async def test_a_call_of_a_killed_process_is_repeated_by_another(
    database_url: str, tmp_path: Path, receiver: Receiver, hook: str
) -> None:
    hang = Hang()
    receiver.script(hang)
    settings = {
        "database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE, "pepper": "pepper",
        "allow_networks": "127.0.0.0/8", "worker_tick_s": 0.05, "webhook_timeout_s": 3, "lease_s": 5,
    }  # fmt: skip
    async with served(cwd=tmp_path, **settings) as gateway:
        video_id = await gateway.create(model="sandbox/reject", webhook_url=hook)
        await hang.reached.wait()
        gateway.child.kill()
        await gateway.child.end()
    async with served(cwd=tmp_path, **settings):
        await receiver.wait_for(2)
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert second.json["data"]["id"] == video_id


async def test_the_result_of_a_worker_that_lost_its_lease_is_ignored(
    gateway: Running, receiver: Receiver, hook: str
) -> None:
    """The first worker's call comes back after the second has delivered."""
    hang = Hang()
    receiver.script(hang)
    endpoint = await register(gateway, hook)
    await cancelled(gateway)
    slow = asyncio.create_task(gateway.worker.run_once())
    await hang.reached.wait()
    gateway.clock.advance(LEASE_S)
    async with another_worker(gateway) as other:
        await other.run_once()
    hang.release.set()
    await slow
    (delivery,) = await log_of(gateway, endpoint)
    assert (delivery["state"], [entry["status_code"] for entry in delivery["tries"]]) == ("delivered", [204])


async def test_two_workers_deliver_each_event_once(gateway: Running, receiver: Receiver, hook: str) -> None:
    await register(gateway, hook)
    await cancelled(gateway)
    await multiply(gateway, 300)
    async with another_worker(gateway) as other:
        await asyncio.gather(gateway.worker.run_once(), other.run_once())
    got = [received.id for received in receiver.received]
    assert len(got) == len(set(got)) == 301


async def multiply(gateway: Running, times: int) -> None:
    """That many more events like the one that waits, each of a video of its own."""
    async with gateway.gateway.db.transaction() as session:
        columns = [c for c in Delivery.__table__.columns.keys() if c not in ("id", "video_id")]  # noqa: SIM118
        names = ", ".join(columns)
        await session.execute(
            sa.text(
                f"insert into deliveries (id, video_id, {names})"
                f" select id || '-' || n, video_id || n, {names} from deliveries, generate_series(1, :times) as n"
            ),
            {"times": times},
        )


@pytest.mark.parametrize("whose", ["another project", "the same project", "a request of the same project"])
async def test_ten_thousand_to_a_dead_endpoint_do_not_delay_another(
    start_gateway: StartGateway, receiver: Receiver, hook: str, whose: str
) -> None:
    """The dead one accepts connections and never answers, which is the worst kind."""
    dead = Receiver(always=Hang())
    settings = {"webhook_concurrency": 20, "webhook_timeout_s": 60, "worker_tick_s": 0.02, "shutdown_grace_s": 0}
    async with serve(dead) as dead_url, start_gateway(**settings) as gateway:
        await register(gateway, dead_url)
        await cancelled(gateway)
        await multiply(gateway, 10_000)
        running = asyncio.create_task(gateway.worker.run())
        await dead.wait_for(4)
        given = {}
        client = gateway.bob if whose == "another project" else gateway.client
        if whose == "a request of the same project":
            given = {"webhook_url": hook}
        else:
            await post(client, "/v1/webhook_endpoints", name="x", url=hook, event_types=TYPES)
        body = {"prompt": "p", "model": "sandbox/slow", **given}
        video_id = (await post(client, "/v1/videos", 202, **body))["id"]
        await client.delete(f"/v1/videos/{video_id}")
        async with asyncio.timeout(5):
            await receiver.wait_for(1)
        assert receiver.received[0].json["data"]["id"] == video_id
        assert len(dead.received) == 4  # a fifth of the places
        gateway.worker.stop()
        await running


async def test_a_project_with_many_dead_addresses_does_not_delay_another(gateway: Running) -> None:
    """Projects take turns, and a project that has many under way comes after one that has none."""
    await register(gateway, "http://127.0.0.1:9/")
    await cancelled(gateway)
    async with gateway.gateway.db.transaction() as session:
        await session.execute(
            sa.text(
                "insert into deliveries (id, video_id, event_id, event_type, project_id, queue_key, url, style, video,"
                " state, due_at, tries, created_at) select 'm' || n, 'v' || n, event_id, event_type, project_id,"
                " 'q' || n, 'http://h/', 'standard', '{}', state, due_at - interval '1 hour', 0, created_at"
                " from deliveries, generate_series(1, 2000) as n"
            )
        )
        await session.execute(
            sa.text(
                "insert into deliveries (id, video_id, event_id, event_type, project_id, queue_key, url, style, video,"
                " state, due_at, tries, created_at) select 'bob', 'bob', event_id, event_type, 'bob', 'q',"
                " 'http://h/', 'standard', '{}', state, due_at, 0, created_at from deliveries limit 1"
            )
        )
    async with gateway.gateway.db.transaction() as session:
        claimed = [
            [
                delivery.project_id
                for delivery in await deliveries.claim_deliveries(
                    session, slots, share=10, lease_s=60, now=gateway.clock()
                )
            ]
            for slots in (10, 10)
        ]
    assert "bob" in claimed[0]
    assert len(claimed[0]) == len(claimed[1]) == 10
