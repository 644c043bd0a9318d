"""Connect: the lines with which a program reaches this gateway."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.console.guard import ConsoleRoute, KeyHolderDep
from app.console.pages import render
from app.http.context import Gateway, GatewayDep, origin_of

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

NAMES = {"openai": "OpenAI", "luma": "Luma", "lumen": "Lumen", "lunos": "Lunos", "apilaplas": "Apilaplas"}
"""Names of the APIs that the gateway speaks."""
MODELS = 12
"""Models that the answer of the test names."""


@routes.get("/console/connect")
async def show_connect(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show the snippets, with the address and a model of this gateway."""
    models = gateway.router.permitted_models(caller.may_use, every=False)
    default = gateway.router.default_model
    model = default if default in models else next(iter(models), "MODEL")
    return await render(
        request, "connect.html", apis=_apis(gateway, origin_of(request)), model=model, tested=None, names=[]
    )


@routes.post("/console/connect")
async def test_connection(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Ask for the models as a program with this key would."""
    names = list(gateway.router.permitted_models(caller.may_use, every=False))
    return await render(
        request,
        "connect.html",
        apis=_apis(gateway, origin_of(request)),
        model=next(iter(names), "MODEL"),
        tested=len(names),
        names=names[:MODELS],
    )


def _apis(gateway: Gateway, origin: str) -> list[tuple[str, str]]:
    """Name and address of the call that creates a video, of each API."""
    return [(NAMES.get(name, name), f"{origin}{path}") for name, path in gateway.create_paths.items()]
