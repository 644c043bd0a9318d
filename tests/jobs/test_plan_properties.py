"""Plans of any request at any set of configured vendors: who can make it, who is asked first, and what is held."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import errors
from app.accounts import pricing
from app.capabilities import fit
from app.jobs.choose import ALIKE, NO_WISHES, Routing, Strategy
from app.jobs.plan import Plan, make_plan
from app.providers import KINDS
from app.providers.base import Provider
from app.providers.catalogue import Catalogue
from app.providers.routing import Route, Router
from app.settings import Settings, load
from app.video import Media, VideoRequest


def described(kind: type[Provider]) -> Provider:
    """A provider of a kind; it is never called."""
    given = {"api_key": "x", "base_url": "https://x.example", "project": "p"}
    needed = {name: given[name] for name, field in kind.Config.model_fields.items() if field.is_required()}
    return kind(kind.kind, kind.Config(**needed))


VENDORS = {kind.kind: described(kind) for kind in KINDS if kind.kind != "sandbox"}
SERVED = [
    name for name, model in Catalogue.load().models.items() if {row.kind for row in model.routes} & VENDORS.keys()
]
PICTURE = Media(url="https://x.example/boat.png")

requests = st.builds(
    VideoRequest,
    prompt=st.just("a boat"),
    model=st.sampled_from(SERVED),
    seconds=st.one_of(st.none(), st.integers(1, 20).map(float)),
    resolution=st.sampled_from([None, None, "480p", "720p", "1080p"]),
    generate_audio=st.sampled_from([None, True, False]),
    first_frame=st.sampled_from([None, None, PICTURE]),
    last_frame=st.sampled_from([None, None, None, PICTURE]),
    seed=st.sampled_from([None, 7]),
    loop=st.sampled_from([None, None, True]),
    n=st.integers(1, 4),
)
wishes = st.builds(
    Routing,
    strategy=st.sampled_from([None, *Strategy]),
    max_cost_micros=st.one_of(st.none(), st.integers(10_000, 10_000_000)),
)


def able(router: Router, request: VideoRequest, model: str) -> list[Route]:
    """The routes of a model that can express a request, judged one by one."""
    found = [serving for route in router.routes(model) if (serving := route.for_request(request)) is not None]
    return [
        route
        for route in found or router.routes(model)
        if not fit(request, route.capabilities_for(request), can_link=router.can_link).problems
    ]


def check(plan: Plan, config: Settings, routes: Sequence[Route], wished: Routing, *, cheapest: bool) -> None:
    names = {route.name for route in routes}
    assert plan.routes
    assert {route.name for route in plan.routes} <= names, "each can express the request"
    costs = {route.name: pricing.estimate(config, route, plan.request) for route in routes}
    priced = [found.micros for found in costs.values() if found is not None]
    kept = [costs[route.name] for route in plan.routes]
    if cheapest and priced:
        first = kept[0]
        assert first is not None
        assert first.micros <= min(priced) * ALIKE, "no cheaper one could"
    hold = pricing.quote(config, plan.routes, plan.request).hold_micros
    assert hold == (None if None in kept else max(one.micros // one.outputs for one in kept if one is not None))
    if wished.max_cost_micros is not None:
        assert None not in kept
        assert all(one.micros <= wished.max_cost_micros for one in kept if one is not None)


@pytest.mark.parametrize("unsupported", [None, "error", "drop"])
@given(request=requests, kinds=st.sets(st.sampled_from(sorted(VENDORS)), min_size=1), wished=wishes)
@settings(deadline=None, max_examples=100)
def test_the_first_route_can_make_it_and_no_cheaper_one_could(
    unsupported: str | None, request: VideoRequest, kinds: set[str], wished: Routing
) -> None:
    name = request.model
    aliases = {} if unsupported is None else {"clip": {"routes": [name], "unsupported": unsupported}}
    config = load(_env_file=None, models=aliases)
    router = Router(config, {kind: VENDORS[kind] for kind in kinds})
    asked = request if unsupported is None else request.model_copy(update={"model": "clip"})
    try:
        plan = make_plan(router, asked, settings=config, routing=wished)
    except errors.ModelNotFound:
        assert not {row.kind for row in router.catalogue.models[name].routes} & kinds or not router.catalogued(name)
        return
    except errors.UnsupportedParameter:
        assert able(router, asked, name) == [], "refused by all"
        return
    except errors.InsufficientFunds:
        assert wished.max_cost_micros is not None
        with_all = make_plan(router, asked, settings=config, routing=Routing(wished.strategy))
        found = [pricing.estimate(config, route, with_all.request) for route in with_all.routes]
        assert all(one is None or one.micros > wished.max_cost_micros for one in found)
        return
    routes = able(router, plan.request, name)
    check(plan, config, routes, wished, cheapest=wished.strategy in (None, Strategy.cheapest))


@given(request=requests, kinds=st.sets(st.sampled_from(sorted(VENDORS)), min_size=1))
@settings(deadline=None, max_examples=100)
def test_a_key_with_a_budget_gets_priced_routes_alone(request: VideoRequest, kinds: set[str]) -> None:
    config = load(_env_file=None)
    router = Router(config, {kind: VENDORS[kind] for kind in kinds})
    try:
        plan = make_plan(router, request, settings=config, only_priced=True)
    except (errors.ModelNotFound, errors.UnsupportedParameter, errors.InsufficientFunds):
        return
    assert all(pricing.estimate(config, route, plan.request) is not None for route in plan.routes)
    assert not any("no price is known" in warning for warning in plan.warnings)
    check(plan, config, able(router, plan.request, request.model), NO_WISHES, cheapest=True)
