"""Kling: prices, and what is sent for them; edits, which are made and priced by their source."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from contract.stage import NOW, read
from fakes.kling import FakeKling
from fakes.server import KEY, Reset, sample_mp4, serve
from fakes.upstream import ask
from harness import Running, StartGateway
from money import ADMIN, Operator, operator_of

from app.providers.base import Task
from app.providers.kling import Kling, v2
from app.video import Media, Operation

pytestmark = pytest.mark.anyio

PICTURE = {"image_url": "https://x.example/a.png"}
CLIP = {"video_url": "https://x.example/a.mp4"}
CLIP_MEDIA = Media(url="https://x.example/a.mp4")
BEIJING = "https://api-beijing.klingai.com"
SOUND = {
    "kling-3.0": {"720p": 0.126, "1080p": 0.168, "2160p": 0.42},
    "kling-3.0-omni": {"720p": 0.112, "1080p": 0.14, "2160p": 0.42},
    "kling-3.0-turbo": {"720p": 0.112, "1080p": 0.14},
    "kling-2.6": {"1080p": 0.14},
    "kling-2.5-turbo": {},
    "kling-o1": {},
}
"""US dollars per second with sound, as Kling's price page had them on 2026-09-20; the models without have none."""
SILENT = {
    "kling-3.0": {"720p": 0.084, "1080p": 0.112, "2160p": 0.42},
    "kling-3.0-omni": {"720p": 0.084, "1080p": 0.112, "2160p": 0.42},
    "kling-3.0-turbo": {},
    "kling-2.6": {"720p": 0.042, "1080p": 0.07},
    "kling-2.5-turbo": {"720p": 0.042, "1080p": 0.07},
    "kling-o1": {"720p": 0.084, "1080p": 0.112},
}
WITH_VIDEO = {"kling-3.0-omni": {"720p": 0.126, "1080p": 0.168}, "kling-o1": {"720p": 0.126, "1080p": 0.168}}


@pytest.fixture
def fake() -> FakeKling:
    return FakeKling()


@pytest.fixture
async def gateway(fake: FakeKling, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"kling": {"api_key": KEY, "base_url": url}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.fixture
async def kling(fake: FakeKling) -> AsyncIterator[Kling]:
    async with serve(fake) as url:
        provider = Kling("up", Kling.Config(api_key=KEY, base_url=url))
        yield provider
        await provider.aclose()


def task(**fields: Any) -> Task:
    values = {"id": "attempt_1", "model": "kling-3.0", "request": ask(), "read": read, "now": NOW}
    return Task(**{**values, **fields})


# Prices


@pytest.mark.parametrize(
    ("model", "fields", "sent", "cost"),
    [
        ("kling-3.0", {}, ("720p", 5), 0.126),
        ("kling-3.0", {"generate_audio": False, "seconds": "15"}, ("720p", 15), 0.084),
        ("kling-3.0", {"resolution": "4k", "generate_audio": False}, ("4k", 5), 0.42),
        ("kling-3.0-turbo", {"resolution": "1080p"}, ("1080p", 5), 0.14),
        ("kling-2.6", {}, ("720p", 5), 0.042),
        ("kling-2.6", {"generate_audio": True}, ("1080p", 5), 0.14),
        ("kling-2.6", {"resolution": "1080p", "generate_audio": False}, ("1080p", 5), 0.07),
        ("kling-2.5-turbo", {"input_reference": PICTURE, "last_frame": PICTURE}, ("1080p", 5), 0.07),
        ("kling-3.0-omni", {"reference_video": CLIP, "seconds": "10"}, ("720p", 10), 0.126),
        ("kling-o1", {"reference_images": [PICTURE], "seconds": "7"}, ("720p", 7), 0.084),
    ],
)
async def test_a_video_costs_what_was_sent(
    gateway: Running, fake: FakeKling, model: str, fields: dict[str, Any], sent: tuple[str, int], cost: float
) -> None:
    video = await gateway.create(model=f"kling/{model}", **fields)
    assert video["cost_estimate"] == pytest.approx(sent[1] * cost)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    settings = fake.submits[0].json["settings"]
    assert (settings["resolution"], settings["duration"]) == sent


async def test_the_price_of_a_video_input_at_4k_is_not_known(gateway: Running) -> None:
    video = await gateway.create(model="kling/kling-3.0-omni", reference_video=CLIP, resolution="4k")
    assert video["cost_estimate"] is None


def micros(table: dict[str, float]) -> dict[str, int]:
    return {resolution: round(price * 1_000_000) for resolution, price in table.items()}


@pytest.mark.parametrize("model", list(v2.MODELS))
def test_every_list_price_is_that_of_the_price_page(model: str) -> None:
    """The price of a resolution that has no sound is the silent one, in both tables."""
    able = v2.MODELS[model]
    sound, silent = micros(SOUND[model]), micros(SILENT[model])
    assert able.prices == silent | sound
    assert set(able.prices) == set(able.resolutions or ())
    assert able.silent_prices == (silent if "generate_audio" in able.parameters else {})
    edit = ask(operation=Operation.edit, source=CLIP_MEDIA)
    with_video = v2.capabilities_for(model, ask(reference_video=CLIP_MEDIA)).prices
    if model in WITH_VIDEO:
        assert with_video == v2.capabilities_for(model, edit).prices == micros(WITH_VIDEO[model])
    else:
        assert "reference_video" not in able.parameters


def test_every_model_has_its_row_of_prices() -> None:
    assert set(v2.MODELS) == set(SOUND) == set(SILENT)
    assert set(WITH_VIDEO) == {model for model in v2.MODELS if v2.is_omni(model)}


async def test_the_chinese_service_has_no_list_prices(start_gateway: StartGateway) -> None:
    providers = {
        "kling": {"api_key": KEY, "base_url": BEIJING},
        "abroad": {"kind": "kling", "api_key": KEY},
        "paid": {"kind": "kling", "api_key": KEY, "base_url": f"{BEIJING}:443/"},
    }
    async with start_gateway(providers=providers, prices={"paid/kling-3.0": 0.1}) as gateway:
        costs = {
            name: [
                (await gateway.create(model=f"{name}/kling-3.0", generate_audio=sound))["cost_estimate"]
                for sound in (True, False)
            ]
            for name in providers
        }
        shown = {row["id"]: row for row in (await gateway.client.get("/v1/models?all=true")).json()["data"]}
    assert costs == {"kling": [None, None], "abroad": [0.63, 0.42], "paid": [0.5, 0.5]}
    assert [shown[f"{name}/kling-3.0"]["pricing"] is None for name in providers] == [True, False, False]


# Edits


async def source_in(gateway: Running, size: str, **fields: Any) -> str:
    made = await gateway.create(model="kling/kling-3.0", size=size, **fields)
    return str((await gateway.finish(made["id"]))["id"])


@pytest.mark.parametrize(
    ("size", "model", "sent", "price"),
    [
        ("3840x2160", "kling-o1", "1080p", 0.168),
        ("3840x2160", "kling-3.0-omni", "1080p", 0.168),
        ("1920x1080", "kling-3.0-omni", "1080p", 0.168),
        ("1280x720", "kling-o1", "720p", 0.126),
    ],
)
async def test_an_edit_inherits_a_resolution_that_the_model_has_and_that_has_a_price(
    gateway: Running, fake: FakeKling, size: str, model: str, sent: str, price: float
) -> None:
    fake.file = sample_mp4(5)
    source = await source_in(gateway, size)
    edit = {"prompt": "at night", "model": f"kling/{model}", "video": {"id": source}}
    made = (await gateway.client.post("/v1/videos/edits", json=edit)).json()
    assert made["cost_estimate"] == pytest.approx(5 * price)
    assert (await gateway.finish(made["id"]))["status"] == "completed"
    assert fake.submits[1].json["settings"]["resolution"] == sent


async def test_an_edit_takes_length_and_shape_of_its_source(gateway: Running, fake: FakeKling) -> None:
    fake.file = sample_mp4(5)
    source = await gateway.finish((await gateway.create(model="kling/kling-3.0", size="720x1280"))["id"])
    edit = {"prompt": "at night", "model": "kling/kling-3.0-omni", "video": {"id": source["id"]}}
    made = (await gateway.client.post("/v1/videos/edits", json=edit)).json()
    assert made["cost_estimate"] == pytest.approx(5 * 0.126)
    assert (await gateway.finish(made["id"]))["status"] == "completed"
    sent = fake.submits[1].json
    (ref, _) = fake.jobs
    assert sent["contents"][1]["type"] == "base_video"
    assert sent["contents"][1]["url"].endswith(f"/files/{ref}.mp4")
    assert sent["settings"] == {"resolution": "720p", "audio": "original", "multi_shot": False}
    del fake.jobs[ref]
    late = (await gateway.client.post("/v1/videos/edits", json=edit)).json()
    ended = await gateway.finish(late["id"])
    assert "no longer has the file" in ended["error"]["message"]
    assert len(fake.submits) == 2


async def test_a_video_to_edit_needs_an_address(gateway: Running, fake: FakeKling) -> None:
    form = {"prompt": "at night", "model": "kling/kling-3.0-omni"}
    edit = await gateway.client.post("/v1/videos/edits", data=form, files={"video": ("a.mp4", fake.file, "video/mp4")})
    assert (edit.status_code, fake.submits) == (400, [])
    assert "GATEWAY_PUBLIC_URL" in edit.json()["error"]["message"]


@pytest.mark.parametrize(
    ("billing", "micros"),
    [
        ([{"charge_type": "cash", "amount": "0.42", "currency": "USD"}], 420_000),
        ([{"charge_type": "cash", "amount": "0.4", "currency": "USD"}] * 2, 800_000),
        ([{"charge_type": "unit", "amount": "3", "package_type": "video"}], None),
        ([{"charge_type": "cash", "amount": "3", "currency": "CNY"}], None),
        ([{"charge_type": "cash", "amount": "1e9", "currency": "USD"}], None),
        ([{"charge_type": "cash", "amount": "-1", "currency": "USD"}], None),
        ([{"charge_type": "cash", "amount": True, "currency": "USD"}], None),
        (["cash"], None),
        ("cash", None),
        ([], None),
        (None, None),
    ],
)
async def test_the_reported_cost_is_read_where_it_is_in_dollars(
    fake: FakeKling, kling: Kling, billing: Any, micros: int | None
) -> None:
    ref = (await kling.send(task())).ref
    fake.finish(ref)
    fake.jobs[ref].raw["billing"] = billing
    assert (await kling.poll(task(ref=ref))).reported_micros == micros


# Candidates of a lost submit


@pytest.fixture
async def admin(fake: FakeKling, start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with serve(fake) as url:
        providers = {"kling": {"api_key": KEY, "base_url": url}}
        async with start_gateway(providers=providers, admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
            yield operator


async def test_candidates_are_chosen_by_the_id_that_the_vendor_lists(admin: Operator, fake: FakeKling) -> None:
    fake.script("submit", Reset())
    video = await admin.gateway.create(model="kling/kling-3.0")
    await admin.gateway.worker.run_once()
    (attempt,) = await admin.gateway.attempts(video["id"])
    submitted_ms = int(admin.gateway.clock.now.timestamp() * 1000)
    (its,) = fake.jobs
    fake.unlisted.add(its)
    for number, own_id in enumerate(("att_of_other_software", "", None, 7)):
        fake.job(f"other-{number}", {"own_id": own_id})
    for number, ref in enumerate(fake.jobs):
        fake.jobs[ref].raw["create_time"] = submitted_ms + 1_000 * (9 - number if ref == its else number)
    assert (await admin.gateway.finish(video["id"]))["status"] == "failed"
    found = await admin.client.get("/admin/v1/repairs", params={"candidates": "true"})
    [row] = found.json()["data"]
    assert row["id"] == attempt.id
    assert [task["upstream_ref"] for task in row["candidates"]] == [its, "other-1", "other-2", "other-3"]
