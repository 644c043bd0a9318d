"""The attempts of a video in the administration API."""

import pytest
import sqlalchemy as sa
from fakes.server import KEY, Answer
from harness import Running, StartGateway
from upstreams import Upstreams

from app.db.models import Attempt

pytestmark = pytest.mark.anyio


async def test_an_operator_sees_every_attempt(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].script("submit", Answer(402, {"error": {"message": "top up"}}))
    models = {"clip": {"routes": ["one/sora-2", "two/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models, admin_key="root") as gateway:
        video = await gateway.create(model="clip")
        await gateway.finish(video["id"])
        path = f"/admin/v1/videos/{video['id']}"
        assert (await gateway.client.get(path)).status_code == 401
        shown = (await gateway.client.get(path, headers={"authorization": "Bearer root"})).json()
    assert shown["provider"] == "two"
    assert [(a["provider"], a["state"], a["error_code"]) for a in shown["attempts"]] == [
        ("one", "failed", "upstream_insufficient_credit"),
        ("two", "succeeded", None),
    ]
    assert KEY not in str(shown)


async def test_an_operator_sees_addresses_without_credentials(start_gateway: StartGateway, two: Upstreams) -> None:
    fields = {
        "prompt": "a boat",
        "input_reference": "https://me:sekret@x.example/a.png?sig=sekret#sekret",
        "style": {"like": ["https://x.example/b.png?token=sekret"]},
    }
    async with start_gateway(providers=two.providers(), admin_key="root") as gateway:
        video = await gateway.create(model="one/sora-2", **fields)
        async with gateway.gateway.db.transaction() as session:
            output = {"url": "https://y.example/clip.mp4?X-Amz-Signature=sekret"}
            await session.execute(sa.update(Attempt).values(output=output))
        path = f"/admin/v1/videos/{video['id']}"
        answer = await gateway.client.get(path, headers={"authorization": "Bearer root"})
    assert "sekret" not in answer.text
    shown = answer.json()
    assert shown["request"]["first_frame"]["url"] == "https://x.example/a.png"
    assert shown["request"]["extra"] == {"style": {"like": ["https://x.example/b.png"]}}
    assert [attempt["output"] for attempt in shown["attempts"]] == [{"url": "https://y.example/clip.mp4"}]


async def test_without_an_admin_key_there_is_no_administration(gateway: Running) -> None:
    video = await gateway.create()
    assert (await gateway.client.get(f"/admin/v1/videos/{video['id']}")).status_code == 404
