"""Administration API, the installation: the settings in use and their origins, and the state of the running gateway."""

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from app.admin import operation_responses as responses
from app.admin.shown_settings import advice, shown_settings
from app.http.context import Gateway, GatewayDep
from app.http.openapi import returns
from app.http.parameters import only_known_parameters
from app.http.responses import no_store
from app.jobs.overview import read_overview

routes = APIRouter(tags=["administration"], dependencies=[Depends(only_known_parameters)])


@routes.get("/admin/v1/settings", responses=returns(responses.SettingsReport))
async def show_settings(
    gateway: GatewayDep,
    every: Annotated[
        bool, Query(alias="all", description="True: those that are not set, too, with their defaults.")
    ] = False,
) -> Response:
    """Read the settings with which the process that answers was started, each with its origin, and what their values
    warn of. Secrets are masked."""
    return no_store(settings_object(gateway, every=every))


@routes.get("/admin/v1/status", responses=returns(responses.StatusReport))
async def show_status(gateway: GatewayDep) -> Response:
    """Read the state of the running gateway: workers, unfinished outputs by provider and state, open circuits, submits
    of unknown outcome, waiting webhooks, the last 24 hours and the money held. `video-gateway status` shows the
    same."""
    return no_store(await status_object(gateway))


async def status_object(gateway: Gateway) -> dict[str, Any]:
    """The document of the state of the running gateway."""
    began = time.perf_counter()
    await gateway.db.now()
    database_ms = round((time.perf_counter() - began) * 1_000, 2)
    found = await read_overview(gateway.db, gateway.clock())
    return {"object": "status", **found, "database_ms": database_ms}


def settings_object(gateway: Gateway, *, every: bool) -> dict[str, Any]:
    """The settings of this process without secrets, each with its origin; with `every` those that are not set, too."""
    config, dialects = gateway.settings, {name: type(found) for name, found in gateway.dialects.items()}
    shown = [vars(one) for one in shown_settings(config, gateway.origins, dialects, every=every)]
    found = [one._asdict() for one in advice(config, gateway.providers)]
    return {"object": "settings", "files": gateway.origins[0], "data": _plain(shown), "warnings": found}


def _plain(value: Any) -> Any:
    """A document of JSON alone: a TOML file may hold times, and numbers that JSON lacks."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)
