"""OpenRouter's list of models: what is believed of it, when it is read, and what its prices come to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes.openrouter import LISTED, FakeOpenRouter
from fakes.server import KEY, Answer, Fault, Hang, Reset, serve
from harness import Running, StartGateway
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app import errors
from app.providers.openrouter import OpenRouter
from app.providers.openrouter.listing import ANYTHING, MAX_MODELS, MAX_SIZES, MAX_WORDS, Model, read_models, released
from app.providers.openrouter.prices import MAX_NAMES, read_rates
from app.providers.openrouter.refresh import REFRESH_S, RETRY_S, ModelList
from app.video import Media, Operation, VideoRequest

pytestmark = pytest.mark.anyio

VEO, SEEDANCE, WAN = "google/veo-3.1", "bytedance/seedance-2.0", "alibaba/wan-2.6"
PICTURE = "https://example.com/a.png"
Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def fake() -> FakeOpenRouter:
    return FakeOpenRouter()


@pytest.fixture
def start(start_gateway: StartGateway, fake: FakeOpenRouter) -> Start:
    @asynccontextmanager
    async def started(**config: Any) -> AsyncIterator[Running]:
        async with serve(fake) as url:
            providers = {"openrouter": {"api_key": KEY, "base_url": f"{url}/api/v1", **config}}
            async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
                yield running

    return started


async def eventually(holds: Callable[[], bool]) -> None:
    """Let the event loop run until the list has been read."""
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


async def estimate(gateway: Running, model: str, **fields: Any) -> Any:
    body = {"prompt": "a boat", "model": f"openrouter/{model}", **fields}
    answer = await gateway.client.post("/v1/videos?dryRun=true", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["total_cost_micros"]


def list_of(gateway: Running) -> ModelList:
    provider = gateway.gateway.providers["openrouter"]
    assert isinstance(provider, OpenRouter)
    return provider._list


# When it is read


async def test_no_request_waits_for_the_list(start: Start, fake: FakeOpenRouter) -> None:
    hang = Hang()
    fake.script("models", hang)
    async with start() as gateway:
        assert await estimate(gateway, VEO, seconds=8) == 8 * 400_000
        await hang.reached.wait()
        video = await gateway.create(model=f"openrouter/{VEO}")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        assert len(fake.calls["models"]) == 1
        assert fake.calls["models"][0].headers["authorization"] == f"Bearer {KEY}"
    assert not hang.release.is_set()  # closing did not wait either


async def test_what_the_list_says_is_what_holds(start: Start, fake: FakeOpenRouter) -> None:
    new = {**fake.row(VEO), "id": "maker/new-1", "supported_durations": [7], "generate_audio": None}
    new["pricing_skus"] = {"video-second-720p": "0.25", "duration_seconds_1080p": "0.5"}
    changed = fake.row(VEO, supported_durations=[4], pricing_skus={"duration_seconds": "0.35"})
    fake.rows = [changed, new, fake.row(SEEDANCE)]
    async with start() as gateway:
        assert await estimate(gateway, VEO, seconds=8) == 8 * 400_000
        await eventually(lambda: "maker/new-1" in list_of(gateway).models)
        assert await estimate(gateway, VEO, seconds=4) == 4 * 350_000
        refused = {"prompt": "a boat", "model": f"openrouter/{VEO}", "seconds": "8"}
        answer = await gateway.client.post("/v1/videos", json=refused)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seconds")
        assert await estimate(gateway, "maker/new-1") == 7 * 250_000
        assert await estimate(gateway, "maker/new-1", resolution="1080p") == 7 * 500_000
        shown = [model["id"] for model in (await gateway.client.get("/v1/models?all=true")).json()["data"]]
        own = [name.removeprefix("openrouter/") for name in shown if name.startswith("openrouter/")]
        assert own == [VEO, "maker/new-1", SEEDANCE]
        assert await estimate(gateway, WAN, seconds=5) == 5 * 80_000  # no longer listed, and known all the same
        assert len(fake.calls["models"]) == 1


async def test_the_setting_says_what_is_listed(start: Start, fake: FakeOpenRouter) -> None:
    async with start(models=[VEO]) as gateway:
        await estimate(gateway, VEO)
        await eventually(lambda: bool(fake.calls["models"]))
        assert gateway.gateway.providers["openrouter"].listed == (VEO,)


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500),
        Answer(401, {"error": {"message": KEY}}),
        Answer(200, b"<html>"),
        Answer(200, {"data": []}),
        Answer(200, {"data": {"id": VEO}}),
        Answer(200, []),
        Answer(200, b'{"data":' + b"[" * 50_000),
        Answer(302, headers={"location": "https://evil.example/models"}),
        Reset(),
    ],
    ids=["500", "401", "page", "empty", "object", "array", "deep", "redirect", "reset"],
)
async def test_a_list_that_cannot_be_read_changes_nothing(start: Start, fake: FakeOpenRouter, fault: Fault) -> None:
    fake.script("models", fault)
    with capture_logs() as logs:
        async with start() as gateway:
            await estimate(gateway, VEO, seconds=8)
            await eventually(lambda: any(entry["event"] == "model list not read" for entry in logs))
            assert await estimate(gateway, VEO, seconds=8) == 8 * 400_000
            assert len(fake.calls["models"]) == 1  # not asked again at once
    (entry,) = [entry for entry in logs if entry["event"] == "model list not read"]
    assert (entry["log_level"], entry["provider"]) == ("warning", "openrouter")
    assert KEY not in str(entry)


class Source:
    """A vendor's list that is read, or not, by a clock of its own."""

    def __init__(self, *answers: Mapping[str, Model] | Exception) -> None:
        self.answers = list(answers)
        self.reads = 0
        self.now = 100.0
        self.list = ModelList("up", self.read, lambda: self.now)

    async def read(self) -> Mapping[str, Model]:
        self.reads += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def used(self, after_s: float) -> int:
        """Use the list after a while; returns how often it has been read in all."""
        self.now += after_s
        for _ in range(5):
            self.list.refresh_if_old()
            await asyncio.sleep(0)
        return self.reads


async def test_the_list_is_read_once_a_day_and_sooner_after_a_failure() -> None:
    found = {VEO: released()[VEO]}
    down = errors.UpstreamUnavailable("down", provider="up")
    source = Source(found, down, ValueError("odd"), {}, found)
    assert [await source.used(after) for after in (0, 0, REFRESH_S - 1)] == [1, 1, 1]
    assert source.list.listed == (VEO,)
    assert [await source.used(after) for after in (2, RETRY_S - 1, 2, RETRY_S + 1, RETRY_S + 1)] == [2, 2, 3, 4, 5]
    assert await source.used(REFRESH_S - 1) == 5
    await source.list.close()
    assert await source.used(10 * REFRESH_S) == 5


async def test_a_partial_answer_forgets_no_model_and_many_answers_only_the_oldest() -> None:
    model = released()[VEO]
    batches = [{f"maker/m-{batch}-{number}": model for number in range(MAX_MODELS - 1)} for batch in range(3)]
    partial = {VEO: released()[SEEDANCE]}
    source = Source({"maker/new-1": model, **partial}, {SEEDANCE: model}, *batches)
    await source.used(0)
    await source.used(REFRESH_S + 1)
    assert source.list.listed == (SEEDANCE,)
    assert source.list.models["maker/new-1"] is model
    assert source.list.models[VEO] is released()[SEEDANCE]
    for _ in batches:
        await source.used(REFRESH_S + 1)
    assert source.reads == 5
    assert "maker/new-1" not in source.list.models
    assert source.list.models.keys() >= {*released(), *batches[1], *batches[2]}
    assert len(source.list.models) <= len(released()) + 2 * MAX_MODELS


async def test_a_list_is_judged_beside_the_event_loop(fake: FakeOpenRouter) -> None:
    handed: list[str] = []

    class Recording(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            handed.append(repr(fn))
            return super().submit(fn, *args, **kwargs)

    asyncio.get_running_loop().set_default_executor(Recording(2))
    async with serve(fake) as url:
        provider = OpenRouter("up", OpenRouter.Config(api_key=KEY, base_url=f"{url}/api/v1"))
        assert (await provider._read_list()).keys() == released().keys()
        await provider.aclose()
    assert any("_read_list" in function for function in handed)


@dataclass
class Late(Hang):
    """An answer of the rows once the test sets `release`."""

    rows: list[Any] = field(default_factory=list)

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.set()
        await self.release.wait()
        await Answer(200, {"data": self.rows}).play(scope, receive, send)


@pytest.mark.parametrize(("read", "seconds"), [(True, 7), (False, None)])
async def test_a_model_that_is_not_known_waits_for_the_first_list(
    start: Start, fake: FakeOpenRouter, read: bool, seconds: int | None
) -> None:
    hang = Late(rows=[row(supported_durations=[7])]) if read else Hang()
    fake.script("models", hang)
    async with start() as gateway:
        video = await gateway.create(model="openrouter/maker/new-1")
        await hang.reached.wait()
        await gateway.worker.run_once()
        assert (fake.submits, (await gateway.get(video["id"]))["status"]) == ([], "queued")
        known = await gateway.create(model=f"openrouter/{VEO}")
        await gateway.worker.run_once()
        assert [call.json["model"] for call in fake.submits] == [VEO]
        hang.release.set()
        await eventually(lambda: not list_of(gateway).is_first_pending)
        for one in (video, known):
            assert (await gateway.finish(one["id"]))["status"] == "completed"
        assert [call.json.get("duration") for call in fake.submits] == [6, seconds]


async def test_closing_stops_a_read_that_hangs() -> None:
    stopped = asyncio.Event()

    async def read() -> Mapping[str, Model]:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return {}

    models = ModelList("up", read)
    models.refresh_if_old()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await models.close()
    assert stopped.is_set()


def test_outside_an_event_loop_the_released_list_is_used() -> None:
    provider = OpenRouter("up", OpenRouter.Config(api_key=KEY))
    assert provider.listed == tuple(LISTED)
    assert provider.capabilities("maker/new-1") is ANYTHING


# What is believed of it


def row(**fields: Any) -> dict[str, Any]:
    return FakeOpenRouter.row(VEO, id="maker/new-1", **fields)


def model_of(**fields: Any) -> Model:
    return read_models({"data": [row(**fields)]})["maker/new-1"]


@pytest.mark.parametrize(
    "amount",
    [
        *(
            "-0.4",
            "0",
            "0.0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999999",
            "1e-999999",
            "1e-9",
            "21",
            "",
            "free",
            "0.4 USD",
            "9" * 90,
        ),
        *(-1, 0, 1e300, float("nan"), True, None, [], {}, ["0.4"], {"usd": "0.4"}),
    ],
)
async def test_an_amount_that_is_absurd_is_no_price(amount: Any) -> None:
    able = model_of(pricing_skus={"duration_seconds": amount}).able
    assert (able.prices, able.silent_prices) == ({}, {})
    cheap = {"duration_seconds": "0.5"}
    able = model_of(pricing_skus={**cheap, "duration_seconds_720p": amount}).able
    assert able.prices == {"1080p": 500_000, "2160p": 500_000}
    unlisted = {**cheap, "duration_seconds_4k": amount}
    assert model_of(pricing_skus=unlisted, supported_resolutions=None).able.prices == {}
    silent = model_of(pricing_skus={**cheap, "duration_seconds_without_audio": amount})
    assert set(silent.able.prices.values()) == {500_000}
    assert silent.able_for(ask(generate_audio=False)).prices == {}
    most = {"cents_per_image_input": "501", "minimum_cents_per_generation": "5001"}
    for name in ("cents_per_image_input", "minimum_cents_per_generation", "reference_images"):
        absurd = most.get(name, amount) if amount == "21" else amount
        assert model_of(pricing_skus={**cheap, name: absurd}).able.prices == {}


@pytest.mark.parametrize(
    "name", ["duration_seconds_turbo", "duration_seconds_000p", "per_generation", "", "duration_seconds" * 6]
)
async def test_a_price_of_an_unknown_name_leaves_the_model_without_one(name: str) -> None:
    skus = {"duration_seconds_720p": "0.5", "cents_per_second_video_continuation_720p": "41", name: "0.9"}
    model = model_of(pricing_skus=skus)
    assert (model.able.prices, model.able.silent_prices) == ({}, {})
    assert Operation.extend in model.able.operations


@pytest.mark.parametrize(
    "skus", [None, [], "0.4", 7, {"generate": "0.5"}, {"": "1"}, {f"duration_seconds_{n}p": "1" for n in range(99)}]
)
async def test_prices_of_another_shape_are_none(skus: Any) -> None:
    assert read_rates(skus).all == ()
    assert model_of(pricing_skus=skus).able.prices == {}


async def test_values_of_another_kind_are_ignored() -> None:
    able = model_of(
        supported_durations=[4, -1, 0, True, "6", 5.5, 10**30, None, 8, 999_999],
        supported_resolutions=["720p", "8000000p", "HD", None, {"p": 1}, "4K", "x" * 9_999],
        supported_aspect_ratios=["16:9", "0:9", "auto", 1.78, "99999:1"],
        supported_sizes=["1x1", "99999x99999", 3, "1280x720"],
        supported_frame_images=["first_frame", "middle_frame", 1],
        generate_audio="yes",
        seed=1,
    ).able
    assert (able.seconds, able.seconds_range) == ((4, 8), False)
    assert (able.resolutions, able.aspect_ratios) == (("720p", "2160p"), ("16:9",))
    assert able.parameters == {"first_frame", "reference_images", "reference_video"}


@pytest.mark.parametrize("value", [None, {}, "720p", 7, [], [None], [[]]])
async def test_a_field_without_usable_values_limits_nothing(value: Any) -> None:
    able = model_of(supported_durations=value, supported_resolutions=value, supported_aspect_ratios=value).able
    assert (able.seconds, able.resolutions, able.aspect_ratios) == (None, None, None)
    assert able.prices == {"": 400_000, "2160p": 600_000}


@pytest.mark.parametrize(
    "name", [None, 7, "", "veo", "/", "a/b\n", "a/../b ", "../x", "a/" + "b" * 400, "a b/c", "a/b?x=1"]
)
async def test_a_row_without_a_usable_id_is_left_out(name: Any) -> None:
    assert list(read_models({"data": [{**row(), "id": name}, row(), "x", None, [row()]]})) == ["maker/new-1"]


async def test_a_long_list_is_read_up_to_a_limit() -> None:
    rows = [{**row(), "id": f"maker/m-{number}"} for number in range(MAX_MODELS + 20)]
    assert len(read_models({"data": rows})) == MAX_MODELS
    many = [f"{side}p" for side in range(480, 800)]
    assert len(model_of(supported_resolutions=many).able.resolutions or ()) == MAX_WORDS
    assert len(model_of(supported_aspect_ratios=[f"{n}:9" for n in range(5, 25)]).able.aspect_ratios or ()) == MAX_WORDS
    sizes = [f"{100 * (10 + n % 8)}x{100 * (10 + n // 8)}" for n in range(64)]
    known, more = (model_of(supported_sizes=sizes[:end], supported_resolutions=many) for end in (MAX_SIZES, None))
    assert known.sizes == more.sizes
    skus = {f"duration_seconds_{480 + number}p": "0.5" for number in range(MAX_NAMES + 1)}
    assert model_of(pricing_skus=skus, supported_resolutions=None).able.prices == {}
    able = model_of(supported_durations=list(range(1, 3_000)), supported_sizes=["1280x720"] * 100_000).able
    assert able.seconds == (1, 128)


async def test_a_model_that_only_enlarges_is_no_model_here() -> None:
    assert read_models({"data": [row(upscale_factor={"min": 1.5, "max": 3})]}) == {}


# What a video costs


def ask(**fields: Any) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": "a boat", "model": "m", **fields})


FRAME, CLIP = Media(url=PICTURE), Media(url="https://example.com/in.mp4")


@pytest.mark.parametrize(
    ("model", "request_", "prices"),
    [
        (WAN, ask(), {"720p": 80_000, "1080p": 120_000}),
        (WAN, ask(first_frame=FRAME), {"720p": 100_000, "1080p": 150_000}),
        ("google/veo-3.1-fast", ask(), {"720p": 100_000, "1080p": 120_000, "2160p": 300_000}),
        ("kwaivgi/kling-v3.0-pro", ask(), {"720p": 168_000}),
        (SEEDANCE, ask(), {"480p": 67_252, "720p": 151_200, "1080p": 374_220, "2160p": 777_600}),
        (SEEDANCE, ask(aspect_ratio="1:1"), {"480p": 37_800, "720p": 85_050, "1080p": 210_499, "2160p": 437_400}),
        (SEEDANCE, ask(first_frame=FRAME), {"480p": 88_200, "720p": 198_450, "1080p": 491_164, "2160p": 1_020_600}),
        (SEEDANCE, ask(reference_video=CLIP), {}),
        ("minimax/hailuo-3", ask(reference_video=CLIP), {}),
        ("heygen/heygen-video-1", ask(reference_video=CLIP), {"480p": 40_000, "768p": 60_000, "1440p": 180_000}),
        ("bytedance/seedance-2.5", ask(aspect_ratio="4:3"), {"480p": 105_609, "720p": 232_577}),
        ("heygen/heygen-video-1", ask(reference_images=(FRAME,)), {"480p": 40_000, "768p": 60_000, "1440p": 180_000}),
        ("black-forest-labs/flux-3-video", ask(), {"720p": 170_000, "1080p": 290_000}),
        (
            "black-forest-labs/flux-3-video",
            ask(operation=Operation.extend, source=CLIP),
            {"720p": 410_000, "1080p": 530_000},
        ),
        ("runway/aleph-2", ask(operation=Operation.edit, source=CLIP), {"": 280_000}),
    ],
)
async def test_a_price_depends_on_the_input_the_ratio_and_the_resolution(
    model: str, request_: VideoRequest, prices: dict[str, int]
) -> None:
    assert released()[model].able_for(request_).prices == prices


@pytest.mark.parametrize(
    ("skus", "prices"),
    [
        ({"duration_seconds": "0.1"}, {}),
        ({"duration_seconds": "0.1", "reference_duration_seconds_720p": "0.3"}, {"720p": 300_000}),
        ({"duration_seconds": "0.4", "reference_duration_seconds": "0.3"}, {"720p": 300_000, "1080p": 300_000}),
        ({"duration_seconds_720p": "0.4", "reference_duration_seconds": "0.3"}, {"720p": 400_000, "1080p": 300_000}),
        ({"duration_seconds": "0.4", "reference_duration_seconds": "0"}, {}),
        ({"reference_duration_seconds": "0.3", "video_tokens_with_video_input": "0.000001"}, {}),
    ],
)
async def test_a_reference_video_has_a_price_only_where_the_list_names_one(
    skus: dict[str, str], prices: dict[str, int]
) -> None:
    model = model_of(pricing_skus=skus, supported_resolutions=["720p", "1080p"])
    assert model.able_for(ask(reference_video=CLIP)).prices == prices
    assert model.able_for(ask(reference_video=CLIP, reference_images=(FRAME,))).prices == prices


def options(**parameters: Any) -> dict[str, Any]:
    return {"options": {"google-vertex": {"parameters": parameters}}}


@pytest.mark.parametrize(
    ("provider", "is_priced"),
    [
        ({}, True),
        ({"options": {}}, True),
        (options(), True),
        (options(negativePrompt="people", person_generation="allow_all", enhancePrompt=False), True),
        (options(resolution="4k"), False),
        (options(negativePrompt="people", sampleCount=4), False),
        (options(negative_prompt={"resolution": "4k"}), False),
        ({"options": {"google-vertex": {"resolution": "4k"}}}, False),
        ({"options": {"google-vertex": ["x"]}}, False),
        ({"options": {"google-vertex": {"parameters": ["resolution"]}}}, False),
        ({"options": None}, False),
        ({**options(negativePrompt="people"), "only": ["dear"]}, False),
        ({"order": ["dear"]}, False),
        ("dear", False),
        (["dear"], False),
    ],
)
async def test_what_provider_may_change_has_no_price(start: Start, provider: Any, is_priced: bool) -> None:
    async with start() as gateway:
        for fields, price in (({}, 8 * 400_000), ({"generate_audio": False}, 8 * 200_000)):
            found = await estimate(gateway, VEO, seconds=8, provider=provider, **fields)
            assert found == (price if is_priced else None)


@pytest.mark.parametrize(
    ("model", "prices"),
    [
        (VEO, {"720p": 200_000, "1080p": 200_000, "2160p": 400_000}),
        ("google/veo-3.1-fast", {"720p": 80_000, "1080p": 100_000, "2160p": 250_000}),
        ("kwaivgi/kling-v3.0-std", {"720p": 84_000}),
        ("bytedance/seedance-1-5-pro", {"480p": 11_529, "720p": 25_920, "1080p": 58_320}),
        (SEEDANCE, {}),
    ],
)
async def test_silence_has_a_price_where_it_makes_a_difference(model: str, prices: dict[str, int]) -> None:
    assert released()[model].able.silent_prices == prices


async def test_pictures_and_a_least_amount_count(start: Start) -> None:
    async with start() as gateway:
        lite = "x-ai/grok-imagine-video-1.5-lite"
        assert (
            await estimate(gateway, lite, seconds=1, resolution="480p", input_reference={"image_url": PICTURE})
            == 30_000
        )
        pictures = [PICTURE, PICTURE]
        assert await estimate(gateway, "minimax/hailuo-3", reference_images=pictures) == 5 * 130_000 + 2 * 40_000
        frame = {"image_url": PICTURE}
        assert await estimate(gateway, "minimax/hailuo-3", input_reference=frame) == 5 * 130_000
        assert OpenRouter.models["runway/aleph-2"].least_micros == 560_000
