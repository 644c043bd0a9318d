"""Addresses that callers and upstreams give: wherever one of them comes in, it leads nowhere inside."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fakes.apilaplas import FakeApilaplas
from fakes.gptge import FakeGptGe
from fakes.lumen import FakeLumen
from fakes.lumenfall import FakeLumenfall
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import KEY, Answer, Drip, Elsewhere, Fake, serve
from fakes.sglang import FakeSGLang
from fakes.vllm_omni import FakeVllmOmni
from harness import Running, StartGateway
from names import resolve_names

pytestmark = pytest.mark.anyio

LITERAL = (
    "http://127.0.0.1:{port}/latest",
    "http://localhost:{port}/latest",
    "http://[::1]:{port}/latest",
    "http://[::ffff:127.0.0.1]:{port}/latest",
    "http://127.1:{port}/latest",
    "http://0x7f000001:{port}/latest",
    "http://169.254.169.254/latest",
    "http://192.0.0.192/latest",
    "http://168.63.129.16/latest",
    "http://[fd00:ec2::254]/latest",
    "http://[::ffff:10.0.0.1]/latest",
    "http://2130706433:{port}/latest",
    "http://0x7f.1:{port}/latest",
    "http://127\u30020\u30020\u30021:{port}/latest",
)
"""Private whatever a resolver says: refused with the request."""
REFUSED = (
    *LITERAL,
    "http://LOCALHOST.:{port}/latest",
    "http://meta.localhost:{port}/latest",
    "http://127.0.0.1.:{port}/latest",
)
"""The same with names that some resolvers do not know."""
NAMED = (
    "http://inside.example.com:{port}/latest",
    "http://inside.example.com.:{port}/latest",
    "http://both.example.com:{port}/latest",
    "http://six.example.com:{port}/latest",
)
NAMES = {
    "inside.example.com": ["127.0.0.1"],
    "both.example.com": ["1.1.1.1", "127.0.0.1"],
    "six.example.com": ["::ffff:127.0.0.1"],
}
"""Private by what the resolver says: looked at when they are called."""
INWARD = (*LITERAL, *NAMED)
REDIRECTS = (301, 302, 303, 307, 308)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows some names of ours."""
    resolve_names(monkeypatch, NAMES)


@dataclass(frozen=True)
class Way:
    """A field by which a caller gives a webhook URL."""

    path: str
    field: str
    body: dict[str, Any]

    async def send_event(self, gateway: Running, url: str) -> None:
        """Make an ended job whose event goes to this URL."""
        answer = await gateway.client.post(self.path, json={**self.body, self.field: url})
        assert answer.is_success, answer.text
        video_id = answer.json()["id"]
        if self.field == "url":
            video_id = (await gateway.create(model="sandbox/slow"))["id"]
        assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200


SLOW = {"prompt": "a boat", "model": "sandbox/slow"}
LUMENS = {"webhook_secret": "a secret", "duration": 4}
WAYS = {
    "request": Way("/v1/videos", "webhook_url", SLOW),
    "endpoint": Way("/v1/webhook_endpoints", "url", {"name": "mine", "event_types": ["video.failed"]}),
    "lumen": Way("/v1/videos/generations", "webhook_url", SLOW | LUMENS),
    "luma": Way("/luma/generations", "notify_hook", {"user_prompt": "a boat", "model_name": "sandbox/slow"}),
    "apilaplas": Way("/v2/generate/video/luma-ai/generation", "callback_url", SLOW | {"aspect_ratio": "16:9"}),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def port(receiver: Receiver) -> AsyncIterator[int | None]:
    async with serve(receiver) as url:
        yield httpx.URL(url).port


async def tries(gateway: Running) -> list[Any]:
    query = "select status, error from deliveries join delivery_tries on delivery_id = deliveries.id"
    async with gateway.gateway.db.transaction() as session:
        return list((await session.execute(sa.text(query))).all())


async def test_no_webhook_is_sent_to_a_private_address(
    start_gateway: StartGateway, way: Way, receiver: Receiver, port: int | None
) -> None:
    async with start_gateway(allow_networks=[]) as gateway:
        for template in NAMED:
            await way.send_event(gateway, template.format(port=port))
        await gateway.worker.run_once()
        made = await tries(gateway)
    assert len(made) >= len(NAMED)
    for status, error in made:
        assert status is None
        assert "is not a public address, so nothing was sent" in error
    assert receiver.received == []


async def test_no_test_event_is_sent_to_a_private_address(
    start_gateway: StartGateway, receiver: Receiver, port: int | None
) -> None:
    async with start_gateway(allow_networks=[]) as gateway:
        for template in NAMED:
            body = {"name": "mine", "url": template.format(port=port), "event_types": ["video.failed"]}
            endpoint = (await gateway.client.post("/v1/webhook_endpoints", json=body)).json()
            path = f"/v1/webhook_endpoints/{endpoint['id']}/test"
            answer = await gateway.client.post(path, json={"event_type": "video.failed"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "webhook_endpoint_unreachable")
            assert "is not a public address" in answer.json()["error"]["message"]
    assert receiver.received == []


async def test_a_webhook_to_a_literal_private_address_is_refused(start_gateway: StartGateway, way: Way) -> None:
    async with start_gateway(allow_networks=[]) as gateway:
        for template in REFUSED:
            url = template.format(port=8080)
            answer = await gateway.client.post(way.path, json={**way.body, way.field: url})
            assert answer.status_code == 400, url
            assert f"{way.field}: the address is private" in answer.text
            assert "GATEWAY_ALLOW_NETWORKS" in answer.text
        answer = await gateway.client.post(way.path, json={**way.body, way.field: "https://1.1.1.1/hook"})
        assert answer.is_success, answer.text


async def test_an_endpoint_is_not_moved_to_a_literal_private_address(start_gateway: StartGateway) -> None:
    async with start_gateway(allow_networks=[]) as gateway:
        body = {"name": "mine", "url": "https://example.com/", "event_types": ["video.failed"]}
        endpoint = (await gateway.client.post("/v1/webhook_endpoints", json=body)).json()
        path = f"/v1/webhook_endpoints/{endpoint['id']}"
        answer = await gateway.client.post(path, json={"url": "http://10.0.0.1/"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "private_address")
        assert (await gateway.client.get(path)).json()["url"] == "https://example.com/"


@pytest.mark.parametrize("allowed", ["10.1.0.0/16", "127.0.0.0/8"])
async def test_an_allowed_network_may_be_named_by_its_addresses(
    start_gateway: StartGateway, way: Way, allowed: str
) -> None:
    urls = {"10.1.0.0/16": "http://10.1.2.3/", "127.0.0.0/8": "http://localhost:9/"}
    async with start_gateway(allow_networks=[allowed]) as gateway:
        for network, url in urls.items():
            answer = await gateway.client.post(way.path, json={**way.body, way.field: url})
            assert answer.is_success == (network == allowed), answer.text


async def test_no_redirect_leads_a_webhook_to_a_private_address(
    start_gateway: StartGateway, way: Way, receiver: Receiver, port: int | None
) -> None:
    inside = Receiver()
    async with serve(inside, host="127.0.0.2") as url, start_gateway(allow_networks=["127.0.0.1/32"]) as gateway:
        receiver.script(*(Answer(status, headers={"location": f"{url}/latest"}) for status in REDIRECTS))
        for number in range(len(REDIRECTS)):
            await way.send_event(gateway, f"http://127.0.0.1:{port}/{number}")
            await gateway.worker.run_once()
        made = await tries(gateway)
    assert len(receiver.received) >= len(REDIRECTS)
    assert {status for status, _ in made if status != 204} == set(REDIRECTS)
    assert inside.received == []


# Files that an upstream names


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_working=0, polls_until_done=0, content_call=False)


async def submitted(gateway: Running, fake: FakeOpenAI, url: str) -> str:
    """A job whose upstream says that its file is there."""
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    ref = list(fake.jobs)[-1]
    fake.finish(ref)
    fake.jobs[ref].raw["url"] = url
    return str(video["id"])


async def ended(gateway: Running, video_id: str) -> Any:
    """The error of the failed video."""
    return (await gateway.finish(video_id, step_s=600))["error"]


def upstream(home: str, **values: Any) -> dict[str, Any]:
    return {"up": {"kind": "openai", "base_url": f"{home}/v1", "api_key": KEY, "models": ["sora-2"], **values}}


async def test_no_file_is_fetched_from_a_private_address(
    start_gateway: StartGateway, fake: FakeOpenAI, receiver: Receiver, port: int | None
) -> None:
    async with (
        serve(fake, host="127.0.0.9") as home,
        start_gateway(providers=upstream(home), allow_networks=[]) as gateway,
    ):
        videos = [await submitted(gateway, fake, template.format(port=port)) for template in INWARD]
        for video in videos:
            error = await ended(gateway, video)
            assert error["code"] == "output_gone"
            assert "127.0.0" not in error["message"]
    assert receiver.received == []


async def test_each_hop_of_a_redirected_file_is_looked_at(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    allowed, inside = Receiver(), Receiver()
    async with (
        serve(fake, host="127.0.0.9") as home,
        serve(allowed) as first,
        serve(inside, host="127.0.0.2") as second,
        start_gateway(providers=upstream(home), allow_networks=["127.0.0.1/32"]) as gateway,
    ):
        allowed.always = Answer(302, headers={"location": f"{second}/latest"})
        error = await ended(gateway, await submitted(gateway, fake, f"{first}/clip.mp4"))
    assert error["code"] == "output_gone"
    assert allowed.received
    assert inside.received == []


async def test_a_file_that_comes_byte_by_byte_fails_the_job(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    slow = Receiver(always=Drip())
    async with (
        serve(fake, host="127.0.0.9") as home,
        serve(slow) as elsewhere,
        start_gateway(providers=upstream(home, file_timeout_s=0.2)) as gateway,
    ):
        error = await ended(gateway, await submitted(gateway, fake, f"{elsewhere}/clip.mp4"))
    assert error["code"] == "output_incomplete"
    assert "took longer than 0.2 s" in error["message"]
    assert slow.received


# Pictures and videos that a caller names: literal private addresses are refused, others are passed on as they are

MEDIA: dict[str, tuple[Way, Callable[[str], Any]]] = {
    "input_reference": (WAYS["request"], lambda url: {"input_reference": url}),
    "last_frame": (WAYS["request"], lambda url: {"last_frame": {"image_url": {"url": url}}}),
    "reference_images": (WAYS["request"], lambda url: {"reference_images": ["https://example.com/1.png", url]}),
    "reference_video": (WAYS["request"], lambda url: {"reference_video": {"video_url": url}}),
    "image_url": (WAYS["lumen"], lambda url: {"image_url": url}),
    "reference_image_urls": (WAYS["lumen"], lambda url: {"reference_image_urls": [url]}),
    "video_url": (WAYS["lumen"], lambda url: {"video_url": url}),
    "image_end_url": (WAYS["luma"], lambda url: {"image_end_url": url}),
    "keyframes.frame0.url": (WAYS["apilaplas"], lambda url: {"keyframes": {"frame0": {"type": "image", "url": url}}}),
    "keyframes.frame1.url": (WAYS["apilaplas"], lambda url: {"keyframes": {"frame1": {"type": "image", "url": url}}}),
}


@pytest.mark.parametrize("param", MEDIA)
async def test_a_medium_at_a_literal_private_address_is_refused(start_gateway: StartGateway, param: str) -> None:
    way, fields = MEDIA[param]
    async with start_gateway(allow_networks=[]) as gateway:
        for template in (*REFUSED, "http://user:pass@10.0.0.1/a.png"):
            url = template.format(port=8080)
            answer = await gateway.client.post(way.path, json={**way.body, **fields(url)})
            assert answer.status_code == 400, url
            assert f"{param}: the address is private" in answer.text
        assert (await gateway.client.get("/v1/videos")).json()["data"] == []
        answer = await gateway.client.post(way.path, json={**way.body, **fields("http://[::1")})
        assert f"{param}: this is not an address" in answer.text
        for name in NAMED:
            answer = await gateway.client.post(way.path, json={**way.body, **fields(name.format(port=8080))})
            assert answer.is_success, answer.text
    async with start_gateway(allow_networks=["10.0.0.0/8"]) as gateway:
        answer = await gateway.client.post(way.path, json={**way.body, **fields("http://10.0.0.1/a.png")})
        assert answer.is_success, answer.text


AMBIGUOUS = (
    *("http://127%2e0.0.1/a.png", "http://%31%32%37.0.0.1/a.png", "http://example.com%2f@10.0.0.1/a.png"),
    *("http://example.com\\@10.0.0.1/a.png", "http://10.0.0.1\\@example.com/a.png", "http://10.0.0.1\\.example.com/"),
    *("http://:80/a.png", "http://?a.png", "http://@/a.png", "http:///a.png"),
)
"""Hosts that libraries read in different ways, or none."""


@pytest.mark.parametrize("param", MEDIA)
async def test_a_medium_whose_host_is_ambiguous_is_refused(start_gateway: StartGateway, param: str) -> None:
    way, fields = MEDIA[param]
    async with start_gateway(allow_networks=[]) as gateway:
        for url in AMBIGUOUS:
            answer = await gateway.client.post(way.path, json={**way.body, **fields(url)})
            assert answer.status_code == 400, url
            assert f"{param}: " in answer.text
        answer = await gateway.client.post(way.path, json={**way.body, **fields("https://a:b%5C@example.com/%2e\\?\\")})
        assert answer.is_success, answer.text


async def test_a_webhook_whose_host_is_ambiguous_is_refused(start_gateway: StartGateway, way: Way) -> None:
    async with start_gateway(allow_networks=[]) as gateway:
        for url in AMBIGUOUS:
            answer = await gateway.client.post(way.path, json={**way.body, way.field: url})
            assert answer.status_code == 400, url
            assert f"{way.field}: " in answer.text


BEFORE: dict[str, tuple[Callable[[], Fake], dict[str, Any], str]] = {
    "openai": (FakeOpenAI, {}, "/v1"),
    "vllm-omni": (FakeVllmOmni, {"kind": "openai", "flavor": "vllm-omni"}, "/v1"),
    "sglang": (FakeSGLang, {"kind": "openai", "flavor": "sglang"}, "/v1"),
    "lumenfall": (FakeLumenfall, {"kind": "lumenfall"}, "/openai/v1"),
    "lumen": (FakeLumen, {"kind": "lumen"}, ""),
    "gptge": (FakeGptGe, {"kind": "gptge"}, ""),
    "apilaplas": (FakeApilaplas, {"kind": "apilaplas"}, ""),
}
MODELS = {"lumen": "seedance-2", "gptge": "luma", "apilaplas": "ray-2"}


@pytest.mark.parametrize("name", BEFORE)
async def test_a_medium_is_never_fetched_for_an_upstream(start_gateway: StartGateway, name: str) -> None:
    make, values, suffix = BEFORE[name]
    fake, picture = make(), Elsewhere()
    async with serve(fake) as home, serve(picture) as url:
        config = {"kind": "openai", "base_url": home + suffix, "api_key": KEY, **values}
        async with start_gateway(providers={"up": config}) as gateway:
            model = f"up/{MODELS.get(name, 'sora-2')}"
            await gateway.create(model=model, input_reference={"image_url": f"{url}/cat.png"})
            await gateway.worker.run_once()
    (submit,) = fake.submits
    assert f"{url}/cat.png" in str(submit.fields)
    assert picture.calls == []


async def test_a_medium_is_never_fetched_for_the_sandbox(gateway: Running) -> None:
    picture = Elsewhere()
    async with serve(picture) as url:
        body = {"input_reference": f"{url}/cat.png", "last_frame": f"{url}/dog.png", "reference_video": f"{url}/a.mp4"}
        video = await gateway.create(seconds=1, size="64x64", **body)
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert picture.calls == []
