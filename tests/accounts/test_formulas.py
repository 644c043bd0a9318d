"""Price formulas: an amount per second and a fixed one, with a least price, kept with the job."""

from typing import Any, ClassVar

import pytest

from app.accounts import pricing
from app.capabilities import Capabilities
from app.providers.routing import Route
from app.providers.sandbox import Sandbox
from app.settings import load
from app.video import Media, VideoRequest


class Priced(Sandbox):
    """A provider whose models have every part of a formula."""

    models: ClassVar = {
        "images": Capabilities(prices={"": 50_000}, image_micros=4_000, free_images=2, default_seconds=5),
        "least": Capabilities(prices={"": 160_000}, least_micros=640_000),
        "silent": Capabilities(prices={"": 400_000, "2160p": 600_000}, silent_prices={"": 200_000, "2160p": 400_000}),
        "task": Capabilities(prices={"": 0}, least_micros=250_000),
        "plain": Capabilities(prices={"": 100_000}),
    }


PROVIDER = Priced("up", Priced.Config())
PICTURE = Media(url="https://example.com/a.png")


def quote(*models: str, settings: dict[str, Any] | None = None, **fields: Any) -> pricing.Quote:
    routes = [Route(PROVIDER, model) for model in models]
    request = VideoRequest(prompt="a boat", model="up/any", **fields)
    return pricing.quote(load(_env_file=None, **(settings or {})), routes, request)


@pytest.mark.parametrize(
    ("model", "fields", "micros"),
    [
        ("images", {"seconds": 5}, 250_000),
        ("images", {"seconds": 5, "first_frame": PICTURE, "last_frame": PICTURE}, 250_000),
        ("images", {"seconds": 5, "reference_images": (PICTURE,) * 5}, 262_000),
        ("images", {"first_frame": PICTURE, "reference_images": (PICTURE,) * 2, "n": 2}, 508_000),
        ("least", {"seconds": 2}, 640_000),
        ("least", {"seconds": 5}, 800_000),
        ("silent", {"seconds": 8}, 3_200_000),
        ("silent", {"seconds": 8, "generate_audio": True}, 3_200_000),
        ("silent", {"seconds": 8, "generate_audio": False}, 1_600_000),
        ("silent", {"seconds": 8, "generate_audio": False, "resolution": "2160p"}, 3_200_000),
        ("task", {}, 250_000),
        ("task", {"seconds": 60}, 250_000),
    ],
)
def test_an_estimate_follows_the_formula(model: str, fields: dict[str, Any], micros: int) -> None:
    assert quote(model, **fields).estimate_micros == micros


def test_a_price_of_the_settings_replaces_the_whole_formula() -> None:
    settings = {"prices": {"up/images": 0.01}}
    found = quote("images", settings=settings, seconds=5, reference_images=(PICTURE,) * 5)
    assert (found.estimate_micros, found.prices) == (50_000, [10_000])


def test_a_quote_keeps_a_number_where_the_length_is_all() -> None:
    found = quote("plain", "least", "images", seconds=5, reference_images=(PICTURE,) * 5)
    assert found.prices == [
        100_000,
        {"per_second": 160_000, "fixed": 0, "least": 640_000},
        {"per_second": 50_000, "fixed": 12_000, "least": 0},
    ]
    assert found.hold_micros == 800_000
    assert pricing.held_seconds(found.prices, found.hold_micros) == 5


@pytest.mark.parametrize(
    ("model", "asked", "made", "cost"),
    [
        ("least", 5, 5, pricing.Cost(800_000, 5)),
        ("least", 5, 2, pricing.Cost(640_000, 2)),
        ("least", 5, 30, pricing.Cost(800_000, 5, uncapped_micros=4_800_000)),
        ("images", 5, 4, pricing.Cost(212_000, 4)),
        ("images", 5, 6, pricing.Cost(262_000, 5, uncapped_micros=312_000)),
        ("task", 5, 5, pricing.Cost(250_000, 5)),
        ("task", 5, 4_000_000, pricing.Cost(250_000, 5)),
    ],
)
def test_a_cost_follows_the_formula_up_to_the_hold(model: str, asked: float, made: float, cost: pricing.Cost) -> None:
    found = quote(model, seconds=asked, reference_images=(PICTURE,) * 5)
    assert found.hold_micros is not None
    longest_s = found.longest_s
    assert pricing.cost(found.prices, 0, made, hold_micros=found.hold_micros, longest_s=longest_s) == cost


def test_a_job_without_a_hold_costs_at_most_its_longest_length() -> None:
    found = quote("images", seconds=5, reference_images=(PICTURE,) * 5)
    cost = pricing.cost(found.prices, 0, 4_294_000, hold_micros=None, longest_s=found.longest_s)
    assert (cost.micros, cost.seconds) == (262_000, 5)
