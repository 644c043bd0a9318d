"""Ark: only what the provider contract suite and the recordings do not cover."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from contract.stage import NOW, read
from fakes.ark import FakeArk
from fakes.server import KEY, Answer, serve
from fakes.upstream import ask
from harness import Running, StartGateway

from app.providers.ark import ANYTHING, FAMILIES, LISTED, MODEL, Ark
from app.providers.base import Task

pytestmark = pytest.mark.anyio


@pytest.fixture
def fake() -> FakeArk:
    return FakeArk()


@pytest.fixture
async def gateway(fake: FakeArk, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"ark": {"api_key": KEY, "base_url": f"{url}/api/v3"}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("doubao-seedance-2-5-260628", "2-5"),
        ("dreamina-seedance-2-0-260128", "2-0"),
        ("seedance-2-0-fast-260128", "2-0-fast"),
        ("dreamina-seedance-2-0-mini-260615", "2-0-mini"),
        ("doubao-seedance-1-5-pro-251215", "1-5-pro"),
        ("seedance-1-0-pro-250528", "1-0-pro"),
        ("seedance-1-0-pro-fast-251015", "1-0-pro-fast"),
        ("seedance-1-0-lite-t2v-250428", "1-0-lite-t2v"),
        ("doubao-seedance-1-0-lite-i2v-250428", "1-0-lite-i2v"),
    ],
)
async def test_a_model_has_the_capabilities_of_its_family_under_each_prefix(model: str, family: str) -> None:
    provider = Ark("up", Ark.Config(api_key=KEY))
    able = provider.capabilities(model)
    assert able is not None
    unpriced: dict[str, Any] = {"prices": {}, "silent_prices": {}}
    assert able.model_copy(update=unpriced) == FAMILIES[family].model_copy(update=unpriced)
    for other in ("ep-20261125100000-xy9zz", "seedance-3-0-271231"):
        assert provider.capabilities(other) is ANYTHING
    await provider.aclose()


def test_every_listed_model_is_in_the_table() -> None:
    assert all((match := MODEL.fullmatch(name)) is not None and match[1] in FAMILIES for name in LISTED)


async def test_a_video_costs_what_was_sent(gateway: Running, fake: FakeArk) -> None:
    video = await gateway.create(model="ark/dreamina-seedance-2-0-260128")
    assert video["cost_estimate"] == pytest.approx(5 * 0.1512)
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    assert (fake.submits[0].json["duration"], fake.submits[0].json["resolution"]) == (5, "720p")


@pytest.mark.parametrize(
    ("model", "fields", "cost"),
    [
        ("dreamina-seedance-2-0-260128", {"aspect_ratio": "9:16", "resolution": "480p"}, 0.3515),
        ("dreamina-seedance-2-0-260128", {"aspect_ratio": "1:1", "resolution": "480p"}, 0.3515 * 409_600 / 428_544),
        ("dreamina-seedance-2-5-260628", {"aspect_ratio": "3:4", "resolution": "480p"}, 0.514 * 421_120 / 409_920),
        ("dreamina-seedance-2-0-260128", {"aspect_ratio": "21:9", "resolution": "1080p"}, 1.871),
        ("dreamina-seedance-2-5-260628", {"aspect_ratio": "21:9", "resolution": "480p"}, 0.514 * 428_544 / 409_920),
        ("dreamina-seedance-2-5-260628", {"size": "848x480"}, 0.514),
        ("doubao-seedance-2-0-260128", {"resolution": "720p"}, 0.709715),
        (
            "dreamina-seedance-2-0-260128",
            {"input_reference": {"image_url": "https://example.com/a.png"}},
            0.756 * 927_408 / 921_600,
        ),
        ("seedance-1-5-pro-251215", {"generate_audio": True}, 0.259),
        ("seedance-1-5-pro-251215", {"generate_audio": False}, 0.1295),
        ("seedance-1-0-lite-t2v-250428", {"resolution": "1080p"}, 0.44),
    ],
)
async def test_a_price_counts_the_pixels_of_the_ratio_and_the_sound(
    gateway: Running, model: str, fields: dict[str, Any], cost: float
) -> None:
    video = await gateway.create(model=f"ark/{model}", **fields)
    assert video["cost_estimate"] == pytest.approx(cost, abs=1e-4)


async def test_the_length_of_an_edit_is_not_known(gateway: Running, fake: FakeArk) -> None:
    form = {"prompt": "at night", "model": "ark/dreamina-seedance-2-5-260628"}
    edit = await gateway.client.post("/v1/videos/edits", data=form, files={"video": ("a.mp4", fake.file, "video/mp4")})
    assert (edit.status_code, edit.json()["cost_estimate"]) == (202, None)
    await gateway.finish(edit.json()["id"])
    assert fake.submits[0].json["duration"] == -1


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("dreamina-seedance-2-0-260128", {"seed": 7}, "seed"),
        ("seedance-1-0-pro-250528", {"generate_audio": True}, "generate_audio"),
        ("dreamina-seedance-2-0-fast-260128", {"resolution": "1080p"}, "resolution"),
        ("dreamina-seedance-2-0-260128", {"seconds": 20}, "seconds"),
        ("dreamina-seedance-2-0-260128", {"camera_fixed": True}, "camera_fixed"),
        ("seedance-1-0-lite-t2v-250428", {"camera_fixed": True}, "camera_fixed"),
        ("seedance-1-0-lite-t2v-250428", {"input_reference": "https://x.example/a.png"}, "input_reference"),
        ("seedance-1-0-lite-i2v-250428", {"seconds": 13}, "seconds"),
    ],
)
async def test_a_field_that_the_model_would_refuse_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeArk, model: str, fields: dict[str, Any], param: str
) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": f"ark/{model}", **fields})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert fake.submits == []


@pytest.mark.parametrize("word", ["queued", "running", "succeeded", "failed", "cancelled"])
async def test_only_a_queued_task_is_stopped_and_no_record_is_deleted(word: str) -> None:
    """DELETE of a task that has ended removes its record: a finished one would seem to have never been, and be free."""
    fake = FakeArk()
    async with serve(fake) as url:
        provider = Ark("up", Ark.Config(api_key=KEY, base_url=f"{url}/api/v3"))
        task = Task("attempt_1", LISTED[0], ask(), read=read, now=NOW)
        ref = (await provider.send(task)).ref
        fake.show(ref, word)
        stopped = await provider.cancel(Task("attempt_1", LISTED[0], ask(), read=read, now=NOW, ref=ref))
        await provider.aclose()
    assert (stopped, len(fake.deletes)) == (word == "queued", int(word == "queued"))
    assert stopped or fake.jobs[ref].status == word


async def test_a_task_that_is_gone_when_it_is_to_be_stopped_was_not_stopped() -> None:
    fake = FakeArk()
    async with serve(fake) as url:
        provider = Ark("up", Ark.Config(api_key=KEY, base_url=f"{url}/api/v3"))
        ref = (await provider.send(Task("attempt_1", LISTED[0], ask(), read=read, now=NOW))).ref
        fake.script("cancel", Answer(404, {"error": {"message": "not found"}}))
        assert await provider.cancel(Task("attempt_1", LISTED[0], ask(), read=read, now=NOW, ref=ref)) is False
        await provider.aclose()


async def test_a_key_of_the_other_region_is_explained_to_the_operator(gateway: Running, fake: FakeArk) -> None:
    fake.key = "another"
    video = await gateway.create(model="ark/dreamina-seedance-2-0-260128")
    assert (await gateway.finish(video["id"]))["status"] == "failed"
    [attempt] = await gateway.attempts(video["id"])
    assert "needs the other base URL" in str(attempt.error_message)
