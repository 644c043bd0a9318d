"""Authentication of operators by the keys of the administration API, and who they are, for the audit log."""

from typing import Annotated

from fastapi import Depends, Request

from app import errors
from app.accounts.audit import Actor, ActorKind
from app.http.context import gateway_of, require_operator
from app.http.openapi import BearerKey

READS = ("GET", "HEAD")


async def require_admin(request: Request) -> Actor:
    """Require a key of the administration API, for other methods than GET one that may write. Raises
    `AuthenticationFailed`, `PermissionDenied`, `RateLimited`, or `NotFound` if there is no key, which disables the
    API."""
    keys = gateway_of(request).settings.operators
    if not keys:
        raise errors.NotFound("there is no administration API; set GATEWAY_ADMIN_KEY to have one", code="unknown_url")
    name = require_operator(request, {name: given.key for name, given in keys.items()}, "admin")
    if request.method not in READS and keys[name].role == "read":
        raise errors.PermissionDenied(
            f"the admin key {name!r} may only read; use one with the role `write`, which GATEWAY_ADMIN_KEYS gives",
            code="read_only_key",
        )
    address = request.client.host if request.client is not None else None
    actor = Actor(ActorKind.admin_key, name, address, request.scope["gateway_request_id"])
    request.scope["gateway_actor"] = actor
    return actor


ADMIN_KEY = BearerKey("admin_key", "`GATEWAY_ADMIN_KEY`, or one of `GATEWAY_ADMIN_KEYS`.", require_admin)


async def _actor_of(request: Request) -> Actor:
    actor: Actor = request.scope["gateway_actor"]
    return actor


ActorDep = Annotated[Actor, Depends(_actor_of)]
"""The operator of a request to the administration API, whose router requires `ADMIN_KEY`."""
