"""The choice of a route: the cheapest, the fastest, the written order, and what is passed over."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import errors
from app.accounts import pricing
from app.capabilities import Capabilities, fit
from app.jobs.choose import ALIKE, LEAST_JOBS, NO_WISHES, Choice, Routing, Strategy, Time, choose
from app.jobs.plan import make_plan
from app.providers import KIND_NAMES
from app.providers.base import Download, Provider, Task
from app.providers.routing import Route, Router
from app.settings import Settings, load
from app.video import Output, Progress, Submission, VideoRequest

REQUEST = VideoRequest(prompt="a boat", model="any", seconds=5, resolution="720p")


class Untried(Provider):
    """A provider that was never tried live, with models at any price; nothing is sent to it."""

    kind = "openai"
    title = "Untried"

    def __init__(self, name: str, able: Capabilities) -> None:
        super().__init__(name, self.Config())
        self.able = able

    def capabilities(self, model: str) -> Capabilities | None:
        return self.able

    async def submit(self, task: Task) -> Submission:
        raise NotImplementedError

    async def poll(self, task: Task) -> Progress:
        raise NotImplementedError

    def fetch(self, task: Task, output: Output) -> AbstractAsyncContextManager[Download]:
        raise NotImplementedError


class Tried(Untried):
    tried = date(2026, 11, 26)


def route(name: str, per_second: int | None, *, tried: bool = False, **able: Any) -> Route:
    prices = {} if per_second is None else {"": per_second}
    return Route((Tried if tried else Untried)(name, Capabilities(prices=prices, **able)), "m")


def chosen(routes: list[Route], strategy: Strategy = Strategy.cheapest, **options: Any) -> list[Choice]:
    settings: Settings = load(_env_file=None)
    values = {"max_cost_micros": None, "price_factor": None, "times": {}, **options}
    return choose(routes, values.pop("request", REQUEST), settings=settings, strategy=strategy, **values)


def names(choices: list[Choice], *, kept: bool = True) -> str:
    return "".join(choice.route.provider.name for choice in choices if choice.kept is kept)


def test_the_cheapest_is_first_and_an_unknown_price_last() -> None:
    found = chosen([route("u", None), route("c", 300), route("a", 100), route("b", 200)])
    assert names(found) == "abcu"
    assert found[0].reason == "costs $0.0005"
    assert found[-1].reason == "no price is known"


def test_of_prices_that_are_alike_a_kind_that_was_tried_comes_first() -> None:
    found = chosen([route("a", 10_000), route("b", 10_500, tried=True), route("c", 10_600, tried=True)])
    assert names(found) == "bac"


def test_a_route_beyond_the_limit_or_the_factor_is_passed_over() -> None:
    routes = [route("a", 100_000), route("b", 190_000), route("c", 210_000), route("u", None)]
    found = chosen(routes, price_factor=2)
    assert (names(found), names(found, kept=False)) == ("abu", "c")
    assert found[-1].reason == "dearer than 2 times the cheapest route"
    found = chosen(routes, max_cost_micros=950_000)
    assert (names(found), names(found, kept=False)) == ("ab", "cu")
    assert [choice.reason for choice in found[2:]] == [
        "dearer than max_cost",
        "no price is known, so max_cost cannot cover it",
    ]


@pytest.mark.parametrize(
    ("prices", "code", "words"),
    [
        ((100_000, 200_000), "max_cost_exceeded", r"a/m, costs \$0\.5, and max_cost is \$0\.4"),
        ((None,), "price_unknown", "no price is known for any"),
    ],
)
def test_no_route_within_the_limit_is_an_error_before_anything_is_sent(
    prices: tuple[int | None, ...], code: str, words: str
) -> None:
    with pytest.raises(errors.InsufficientFunds, match=words) as raised:
        chosen([route(name, price) for name, price in zip("ab", prices, strict=False)], max_cost_micros=400_000)
    assert (raised.value.code, raised.value.param) == (code, "max_cost")


def test_the_fastest_comes_first_among_the_places_of_the_known() -> None:
    routes = [route(name, 100) for name in "abcd"]
    times = {"a/m": Time(50, LEAST_JOBS), "b/m": Time(9, LEAST_JOBS - 1), "c/m": Time(20, 100), "d/m": Time(30, 40)}
    orders = [names(chosen(routes, Strategy.fastest, times=times)) for _ in range(400)]
    assert set(orders) == {"cbda", "bcda"}, "now and then the one without enough videos is tried first"
    assert orders.count("bcda") < 60
    assert names(chosen(routes, Strategy.fastest)) == "abcd"


def test_weights_draw_and_the_written_order_stays() -> None:
    routes = [Route(route(name, 100).provider, "m", weight) for name, weight in (("a", 9.0), ("b", 1.0))]
    first = [names(chosen(routes, Strategy.weighted))[0] for _ in range(300)]
    assert 200 < first.count("a") < 300
    assert names(chosen(routes, Strategy.order)) == "ab"


def test_vendors_of_one_model_are_tried_by_price_within_an_alias_of_several() -> None:
    ark, fal = route("ark", 200).provider, route("fal", 100).provider
    routes = [Route(ark, "a", entry=0), Route(fal, "b", entry=0), Route(ark, "c", entry=1)]
    assert [one.route.name for one in chosen(routes, Strategy.order)] == ["fal/b", "ark/a", "ark/c"]


def test_a_weight_is_that_of_a_model_whoever_serves_it() -> None:
    weights = [{"to": "seedance-2.0", "weight": 6}, {"to": "lumen/x", "weight": 1}]
    config = load(_env_file=None, models={"clip": {"routes": weights}})
    providers = {name: KIND_NAMES[name](name, KIND_NAMES[name].Config(api_key="x")) for name in ("ark", "fal", "lumen")}
    assert [one.weight for one in Router(config, providers).routes("clip")] == [2, 2, 2, 1]


PRICES = st.one_of(st.none(), st.integers(0, 10**6))
ROUTES = st.lists(st.tuples(PRICES, st.booleans(), st.sampled_from([None, ("480p",), ("720p", "1080p")])), min_size=1)


@given(ROUTES, st.sampled_from(Strategy), st.integers(1, 4), st.sampled_from([None, 2.0]))
def test_no_cheaper_route_could_serve_and_the_hold_is_the_dearest_kept(
    rows: list[tuple[int | None, bool, tuple[str, ...] | None]], strategy: Strategy, n: int, factor: float | None
) -> None:
    routes = [
        route(f"p{number}", price, tried=tried, resolutions=resolutions)
        for number, (price, tried, resolutions) in enumerate(rows)
    ]
    request = REQUEST.model_copy(update={"n": n})
    able = [one for one in routes if not fit(request, one.capabilities_for(request), can_link=True).problems]
    if not able:
        return
    found = chosen(able, strategy, request=request, price_factor=factor)
    kept = [choice for choice in found if choice.kept]
    assert sorted(choice.route.name for choice in found) == sorted(one.name for one in able)
    priced = [choice.micros for choice in found if choice.micros is not None]
    if strategy is Strategy.cheapest and priced:
        assert kept[0].micros is not None
        assert kept[0].micros <= min(priced) * ALIKE
    hold = pricing.quote(load(_env_file=None), [choice.route for choice in kept], request).hold_micros
    known = [choice.micros for choice in kept if choice.micros is not None]
    assert hold == (max(known) // n if len(known) == len(kept) else None)


def router(*providers: Provider, **settings: Any) -> Callable[..., Any]:
    config = load(_env_file=None, **settings)
    routing = Router(config, {provider.name: provider for provider in providers})

    def plan(model: str, wishes: Routing = NO_WISHES, **fields: Any) -> Any:
        request = VideoRequest(prompt="a boat", model=model, **fields)
        return make_plan(routing, request, settings=config, routing=wishes)

    return plan


def test_an_alias_is_tried_as_written_and_may_name_a_strategy_and_a_limit() -> None:
    a, b = route("a", 200).provider, route("b", 100).provider
    alias = {"routes": ["a/m", "b/m"]}
    plan = router(a, b, models={"clip": alias, "cheap": {**alias, "strategy": "cheapest", "max_cost": 0.0006}})
    assert [one.name for one in plan("clip", seconds=5).routes] == ["a/m", "b/m"]
    assert [one.name for one in plan("clip", Routing(Strategy.cheapest), seconds=5).routes] == ["b/m", "a/m"]
    assert [one.name for one in plan("cheap", seconds=5).routes] == ["b/m"]
    with pytest.raises(errors.InsufficientFunds):
        plan("cheap", Routing(max_cost_micros=400), seconds=5)
