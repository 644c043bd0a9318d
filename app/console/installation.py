"""The settings of the gateway, for the operator: each with its origin and without secrets, and what they warn of."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.admin.installation import settings_object
from app.console.guard import ConsoleRoute, OperatorDep
from app.console.pages import render
from app.http.context import GatewayDep
from app.http.parameters import KnownParameters

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)


@routes.get("/console/settings")
async def show_settings(
    request: Request,
    gateway: GatewayDep,
    actor: OperatorDep,
    _: KnownParameters,
    every: Annotated[bool, Query(alias="all")] = False,
) -> Response:
    """Show the settings of the process that answers; with `all` those that are not set, too."""
    found = settings_object(gateway, every=every)
    lines = [(one["name"], _words(one["value"]), one["origin"]) for one in found["data"]]
    values = {"lines": lines, "files": found["files"], "warnings": found["warnings"], "every": every}
    return await render(request, "settings.html", **values)


def _words(value: Any) -> str:
    """A value for people; empty for none."""
    match value:
        case None:
            return ""
        case str():
            return value
        case float() if value.is_integer():
            return str(int(value))
    return json.dumps(value, ensure_ascii=False)
