"""`GET /v1/videos/{id}/attempts`: the tasks behind a video, as its client may see them."""

import pytest
from fakes.server import KEY, Answer
from harness import StartGateway
from upstreams import Upstreams

from app import ids
from app.jobs.videos import MAX_ATTEMPTS_SHOWN

pytestmark = pytest.mark.anyio


async def test_a_client_sees_each_attempt_without_the_vendors_words(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    two.fakes["one"].script("submit", Answer(402, {"error": {"message": "sekret words: top up"}}))
    models = {"clip": {"routes": ["one/sora-2", "two/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models) as gateway:
        video = await gateway.create(model="clip", n=2)
        path = f"/v1/videos/{video['id']}/attempts"
        waiting = (await gateway.client.get(path)).json()
        assert [entry["state"] for entry in waiting["data"]] == ["pending", "pending"]
        await gateway.finish(video["id"])
        answer = await gateway.client.get(path)
        for client, other in ((gateway.bob, path), (gateway.client, f"/v1/videos/{ids.new('video')}/attempts")):
            assert (await client.get(other)).status_code == 404
        assert (await gateway.client.get(f"{path}?limit=3")).status_code == 400
    shown = answer.json()
    assert shown["has_more"] is False
    found = [(entry["provider"], entry["output_index"], entry["state"]) for entry in shown["data"]]
    assert sorted((provider, state) for provider, _, state in found) == [
        ("one", "failed"),
        ("one", "succeeded"),
        ("two", "succeeded"),
    ]
    (failed,) = (entry for entry in shown["data"] if entry["state"] == "failed")
    assert failed["error"]["code"] == "upstream_insufficient_credit"
    assert failed["submitted_at"] is not None
    assert failed["accepted_at"] is None
    assert failed["ended_at"] >= failed["created_at"]
    done = [entry for entry in shown["data"] if entry["state"] == "succeeded"]
    assert sorted(entry["output_index"] for entry in done) == [0, 1]
    assert all(entry["error"] is None and entry["accepted_at"] is not None for entry in done)
    for secret in ("sekret", KEY, *two.urls.values()):
        assert secret not in answer.text


async def test_a_poll_that_failed_on_the_way_is_no_reason_of_a_success(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    two.fakes["one"].script("poll", Answer(402, {"error": {"message": "top up"}}))
    async with start_gateway(providers=two.providers()) as gateway:
        video = await gateway.create(model="one/sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        (made,) = await gateway.attempts(video["id"])
        assert made.error_code is not None
        (shown,) = (await gateway.client.get(f"/v1/videos/{video['id']}/attempts")).json()["data"]
    assert (shown["state"], shown["error"]) == ("succeeded", None)


async def test_of_very_many_attempts_the_last_are_shown_and_those_with_an_output(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    async with start_gateway(providers=two.providers()) as gateway:
        video = await gateway.create(model="one/sora-2")
        await gateway.finish(video["id"])
        (made,) = await gateway.attempts(video["id"])
        columns = ", ".join(name for name in made.__table__.columns.keys() if name not in ("id", "state"))  # noqa: SIM118
        more = f"insert into attempts (id, state, {columns}) select %(id)s, 'failed', {columns} from attempts "
        more += "where id = %(of)s returning id"
        for _ in range(MAX_ATTEMPTS_SHOWN):
            await gateway.gateway.db.one(more.encode(), {"id": ids.new("att"), "of": made.id})
        shown = (await gateway.client.get(f"/v1/videos/{video['id']}/attempts")).json()
    assert (len(shown["data"]), shown["has_more"]) == (MAX_ATTEMPTS_SHOWN, True)
    assert shown["data"][0]["id"] == made.id
