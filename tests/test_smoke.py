import pytest
from conftest import Running, StartGateway
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve

pytestmark = pytest.mark.anyio


async def test_sandbox(gateway: Running) -> None:
    video = await gateway.create(model="sandbox/testcard", seconds="1", size="320x240")
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed", done
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.status_code == 200


async def test_openai(start_gateway: StartGateway) -> None:
    fake = FakeOpenAI()
    async with (
        serve(fake) as url,
        start_gateway(providers={"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}}) as gateway,
    ):
        video = await gateway.create(model="up/sora-2", seconds="4")
        done = await gateway.finish(video["id"])
        assert done["status"] == "completed", done
        content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
        assert content.content == fake.file
        print(await gateway.attempts(video["id"]))
