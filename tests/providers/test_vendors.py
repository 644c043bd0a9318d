"""Each vendor from end to end: with one key set, a video is made through the OpenAI dialect, stored and served."""

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes.apilaplas import FakeApilaplas
from fakes.gptge import FakeGptGe
from fakes.lumen import FakeLumen
from fakes.lumenfall import FakeLumenfall
from fakes.lunos import FakeLunos
from fakes.server import KEY, Answer, Elsewhere, Fake, Hang, serve
from harness import ORIGIN, Running, StartGateway

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@dataclass(frozen=True)
class Vendor:
    kind: str
    model: str
    fake: Callable[[], Fake]
    suffix: str = ""
    """Path of the kind's base URL."""
    lists: bool = True
    """The kind lists its models by name."""


VENDORS = [
    Vendor("lunos", "lunos/google/veo-3.0-generate-preview", FakeLunos),
    Vendor("lumenfall", "lumenfall/veo-3.1", FakeLumenfall, "/openai/v1", lists=False),
    Vendor("lumen", "lumen/seedance-2", FakeLumen),
    Vendor("gptge", "gptge/luma", FakeGptGe),
    Vendor("apilaplas", "apilaplas/ray-1-6", FakeApilaplas),
]
BY_KIND = {vendor.kind: vendor for vendor in VENDORS}


@pytest.fixture(params=VENDORS, ids=[vendor.kind for vendor in VENDORS])
def vendor(request: pytest.FixtureRequest) -> Vendor:
    found = request.param
    assert isinstance(found, Vendor)
    return found


@dataclass
class At:
    """A gateway in front of one vendor's fake."""

    vendor: Vendor
    fake: Fake
    gateway: Running
    files: Elsewhere

    def ref(self) -> str:
        """The vendor's name for the latest task."""
        return list(self.fake.jobs)[-1]


Start = Callable[..., AbstractAsyncContextManager[At]]


@pytest.fixture
def start(start_gateway: StartGateway) -> Start:
    @asynccontextmanager
    async def started(vendor: Vendor, *, config: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[At]:
        fake, files = vendor.fake(), Elsewhere()
        async with serve(fake) as url, serve(files, host="127.0.0.2") as elsewhere:
            values = {"api_key": KEY, "base_url": f"{url}{vendor.suffix}", **(config or {})}
            async with start_gateway(providers={vendor.kind: values}, **settings) as gateway:
                fake.files_at = f"{elsewhere}/clip.mp4"  # type: ignore[attr-defined]  # see `finish`
                yield At(vendor, fake, gateway, files)

    return started


def finish(at: At) -> None:
    """The vendor has finished the latest task, with its file on another host."""
    at.fake.elsewhere(at.ref(), at.fake.files_at)  # type: ignore[attr-defined]  # set by the fixture


async def test_models_of_a_vendor_are_listed_once_its_key_is_set(vendor: Vendor, start: Start) -> None:
    async with start(vendor) as at:
        listed = [model["id"] for model in (await at.gateway.client.get("/v1/models?all=true")).json()["data"]]
        assert (vendor.model in listed) is vendor.lists
        shown = (await at.gateway.client.get(f"/v1/models/{vendor.model}")).json()
        assert (shown["id"], shown["owned_by"]) == (vendor.model, vendor.kind)


async def test_without_its_key_a_vendor_has_no_models(vendor: Vendor, start_gateway: StartGateway) -> None:
    async with start_gateway(providers={vendor.kind: {"base_url": "http://127.0.0.1:9"}}) as gateway:
        assert (await gateway.client.get(f"/v1/models/{vendor.model}")).status_code == 404


async def test_a_video_is_made_and_stored(vendor: Vendor, start: Start) -> None:
    async with start(vendor) as at:
        video = await at.gateway.create(model=vendor.model)
        await at.gateway.worker.run_once()
        assert (await at.gateway.get(video["id"]))["status"] in ("queued", "in_progress")
        finish(at)
        done = await at.gateway.finish(video["id"])
        assert done["status"] == "completed", done
        assert done["provider"] == vendor.kind
        content = await at.gateway.client.get(f"/v1/videos/{video['id']}/content")
        assert content.content == at.files.file
        assert [call.headers.get("authorization") for call in at.files.calls] == [None]
    assert len(at.fake.submits) == 1


async def test_a_failure_carries_its_reason(vendor: Vendor, start: Start) -> None:
    async with start(vendor) as at:
        video = await at.gateway.create(model=vendor.model)
        await at.gateway.worker.run_once()
        at.fake.fail(at.ref(), None, "the paper got wet")
        ended = await at.gateway.finish(video["id"])
        assert ended["status"] == "failed"
        assert "the paper got wet" in ended["error"]["message"]


async def test_a_word_never_seen_is_still_running(vendor: Vendor, start: Start) -> None:
    async with start(vendor) as at:
        video = await at.gateway.create(model=vendor.model)
        await at.gateway.worker.run_once()
        at.fake.show(at.ref(), "contemplating")
        at.gateway.clock.advance(30)
        await at.gateway.worker.run_once()
        assert (await at.gateway.get(video["id"]))["status"] == "in_progress"
        finish(at)
        assert (await at.gateway.finish(video["id"]))["status"] == "completed"


async def test_ten_thousand_polls_without_progress_end_at_the_deadline(vendor: Vendor, start: Start) -> None:
    async with start(vendor) as at:
        at.fake.polls_until_done = 10_000
        video = await at.gateway.create(model=vendor.model)
        ended = await at.gateway.finish(video["id"], step_s=600)
        assert ended["error"]["code"] == "deadline_exceeded"
    assert len(at.fake.submits) == 1


async def test_a_submit_without_an_answer_is_not_a_second_task(vendor: Vendor, start: Start) -> None:
    async with start(vendor, config={"timeout_s": 0.8}) as at:
        at.fake.script("submit", Hang())
        video = await at.gateway.create(model=vendor.model)
        await at.gateway.worker.run_once()
        at.gateway.clock.advance(30)
        await at.gateway.worker.run_once()
        assert len(at.fake.jobs) == 1
        if vendor.kind == "lumenfall":  # knows our key: asked again, and the same task comes back
            assert len(at.fake.submits) == 2
            assert (await at.gateway.get(video["id"]))["status"] != "failed"
        else:
            assert len(at.fake.submits) == 1
            assert (await at.gateway.get(video["id"]))["error"]["code"] == "upstream_outcome_unknown"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "upstream_account_refused"), (402, "upstream_insufficient_credit"), (429, None)],
)
async def test_a_refusal_becomes_an_error_code_or_a_wait(
    vendor: Vendor, start: Start, status: int, code: str | None
) -> None:
    async with start(vendor) as at:
        at.fake.script("submit", at.fake.refusal(status, "no", headers={"retry-after": "7"} if status == 429 else None))
        video = await at.gateway.create(model=vendor.model)
        await at.gateway.worker.run_once()
        shown = await at.gateway.get(video["id"])
        if code is None:
            assert shown["status"] == "queued"
            at.gateway.clock.advance(8)
            await at.gateway.worker.run_once()
            assert len(at.fake.submits) == 2
        else:
            assert shown["error"]["code"] == code
            assert KEY not in shown["error"]["message"]


# What only some of them have


@pytest.mark.parametrize("kind", ["lumen", "apilaplas"])
async def test_an_upload_reaches_a_vendor_that_takes_only_addresses(kind: str, start: Start) -> None:
    upload = {"input_reference": ("boat.png", PNG, "image/png")}
    fields = {"prompt": "p", "model": BY_KIND[kind].model}
    async with start(BY_KIND[kind], public_url=ORIGIN) as at:
        created = await at.gateway.client.post("/v1/videos", data=fields, files=upload)
        assert created.status_code == 202, created.text
        await at.gateway.worker.run_once()
        sent = at.fake.submits[0].json
        url = sent["image_url"] if kind == "lumen" else sent["keyframes"]["frame0"]["url"]
        assert url.startswith(f"{ORIGIN}/media/uploads/")
        fetched = await at.gateway.client.get(url, headers={"authorization": ""})
        assert (fetched.content, fetched.headers["content-type"]) == (PNG, "image/png")
        forged = url.replace("/0?", "/1?")
        assert (await at.gateway.client.get(forged)).status_code == 404
        at.gateway.clock.advance(2 * 86_400)
        assert (await at.gateway.client.get(url)).status_code == 404
    async with start(BY_KIND[kind]) as at:
        refused = await at.gateway.client.post("/v1/videos", data=fields, files=upload)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input_reference"
        assert "GATEWAY_PUBLIC_URL" in refused.json()["error"]["message"]
        await at.gateway.worker.run_once()
        assert at.fake.submits == []


@pytest.mark.parametrize(
    ("kind", "field"), [("gptge", "notify_hook"), ("apilaplas", "callback_url"), ("lumen", "webhook_url")]
)
async def test_the_vendor_is_asked_to_call_and_a_call_means_poll_now(kind: str, field: str, start: Start) -> None:
    async with start(BY_KIND[kind], public_url=ORIGIN) as at:
        video = await at.gateway.create(model=BY_KIND[kind].model)
        await at.gateway.worker.run_once()
        callback = at.fake.submits[0].json[field]
        assert urlsplit(callback).path.startswith("/callbacks/att_")
        finish(at)
        await at.gateway.worker.run_once()
        assert (await at.gateway.get(video["id"]))["status"] != "completed"  # not due yet
        body = b'{"state": "failed"}'
        secret = at.fake.submits[0].json.get("webhook_secret", "")
        signature = hmac.digest(secret.encode(), body, "sha256").hex()
        called = await at.gateway.client.post(
            callback, content=body, headers={"x-lumen-signature": f"sha256={signature}"}
        )
        assert called.status_code == 200
        await at.gateway.worker.run_once()
        assert (await at.gateway.get(video["id"]))["status"] == "completed"


@pytest.mark.parametrize("kind", ["gptge", "apilaplas"])
@pytest.mark.parametrize("operation", ["extensions", "remix"])
async def test_a_video_goes_on_where_it_was_made(kind: str, operation: str, start: Start) -> None:
    async with start(BY_KIND[kind]) as at:
        source = await at.gateway.create(model=BY_KIND[kind].model, aspect_ratio="9:16")
        await at.gateway.worker.run_once()
        source_ref = at.ref()
        finish(at)
        await at.gateway.finish(source["id"])
        if operation == "remix":
            path = f"/v1/videos/{source['id']}/remix"
            body: dict[str, Any] = {"prompt": "by night"}
        else:
            path, body = "/v1/videos/extensions", {"prompt": "by night", "seconds": "5", "video": {"id": source["id"]}}
        created = await at.gateway.client.post(path, json=body)
        assert created.status_code == 202, created.text
        await at.gateway.worker.run_once()
        sent = at.fake.submits[1]
        if kind == "gptge":
            assert sent.path == f"/luma/generations/{source_ref}/extend"
            assert sent.json == {"user_prompt": "by night"}
        else:
            assert sent.json["keyframes"] == {"frame0": {"type": "generation", "id": source_ref}}
            assert sent.json["aspect_ratio"] == "9:16"
        finish(at)
        assert (await at.gateway.finish(created.json()["id"]))["status"] == "completed"


async def test_what_was_made_elsewhere_cannot_go_on_here(start: Start) -> None:
    async with start(BY_KIND["gptge"]) as at:
        source = await at.gateway.create(model="sandbox/testcard", seconds="1", size="64x64")
        await at.gateway.finish(source["id"])
        body = {"prompt": "p", "seconds": "5", "model": "gptge/luma", "video": {"id": source["id"]}}
        refused = await at.gateway.client.post("/v1/videos/extensions", json=body)
        assert refused.status_code == 400
        assert "sandbox" in refused.json()["error"]["message"]


async def test_many_tasks_are_polled_in_one_request(start: Start) -> None:
    async with start(BY_KIND["apilaplas"]) as at:
        videos = [await at.gateway.create(model="apilaplas/ray-2") for _ in range(20)]
        await at.gateway.worker.run_once()
        for ref in list(at.fake.jobs):
            at.fake.elsewhere(ref, at.fake.files_at)  # type: ignore[attr-defined]  # set by the fixture
        at.gateway.clock.advance(30)
        await at.gateway.worker.run_once()
        assert (len(at.fake.polls), len(at.fake.calls["poll_many"])) == (0, 1)
        for video in videos:
            assert (await at.gateway.get(video["id"]))["status"] == "completed"


async def test_one_bad_task_does_not_spoil_the_poll_of_many(start: Start) -> None:
    async with start(BY_KIND["apilaplas"]) as at:
        for _ in range(3):
            await at.gateway.create(model="apilaplas/ray-2")
        await at.gateway.worker.run_once()
        at.fake.script("poll_many", Answer(400, {"message": "bad id", "statusCode": "400"}))
        at.gateway.clock.advance(30)
        await at.gateway.worker.run_once()
        assert (len(at.fake.polls), len(at.fake.calls["poll_many"])) == (3, 1)  # the whole, then one by one


# Money


async def test_prices_become_an_estimate_and_a_cost(start: Start) -> None:
    prices = {"lumen/seedance-2": {"720p": 0.05, "1080p": 0.11}}
    async with start(BY_KIND["lumen"], prices=prices) as at:
        fields = {"prompt": "p", "model": "lumen/seedance-2", "seconds": "8", "resolution": "1080p"}
        dry = (await at.gateway.client.post("/v1/videos?dryRun=true", json=fields)).json()
        assert dry["total_cost_micros"] == 880_000
        video = await at.gateway.create(**fields)
        assert (video["cost_estimate"], video["cost"]) == (0.88, None)
        await at.gateway.worker.run_once()
        finish(at)
        done = await at.gateway.finish(video["id"])
        assert done["cost"] == pytest.approx(0.11 * done["output"]["duration_seconds"])
        unpriced = await at.gateway.create(model="lumen/veo-3-1", seconds="8")
        assert unpriced["cost_estimate"] is None
        shown = (await at.gateway.client.get("/v1/models/lumen/seedance-2")).json()
        assert shown["pricing"] == {"currency": "USD", "per_second": {"720p": 0.05, "1080p": 0.11}}
