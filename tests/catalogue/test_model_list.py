"""A model of the catalogue in the model list: what any of its vendors can do, whose price is shown, its times."""

import pytest
from catalogue.conftest import Open
from fakes.ark import FakeArk

pytestmark = pytest.mark.anyio


async def test_a_model_can_what_any_of_its_vendors_can_at_the_price_of_the_cheapest(opened: Open) -> None:
    async with opened() as gateway:
        model = (await gateway.client.get("/v1/models/seedance-2.0")).json()
        by_route = {one["route"].split("/")[0]: one for one in model["served_by"]}
        ark, fal = by_route["ark"], by_route["fal"]
        assert set(model["capabilities"]["parameters"]) == {
            *ark["capabilities"]["parameters"],
            *fal["capabilities"]["parameters"],
        }
        assert ark["capabilities"]["parameters"] != fal["capabilities"]["parameters"]
        assert model["pricing"] == ark["pricing"] != fal["pricing"]
        assert model["owned_by"] == "ark"
        assert model["capabilities"]["seconds"] == {"minimum": 4, "maximum": 15, "whole": True}


async def test_the_median_is_that_of_a_vendor_from_the_submit_to_the_end(opened: Open, ark: FakeArk) -> None:
    async with opened(models={"clip": {"routes": ["seedance-2.0"]}}) as gateway:
        video = await gateway.create(model="seedance-2.0")
        gateway.clock.advance(900)  # in the queue
        await gateway.finish(video["id"], step_s=10)
        await gateway.gateway.durations.refresh()
        for name in ("seedance-2.0", "clip"):
            model = (await gateway.client.get(f"/v1/models/{name}")).json()
            medians = {one["route"].split("/")[0]: one["median_seconds"] for one in model["served_by"]}
            assert 0 < medians["ark"] < 300
            assert medians["fal"] is None
