"""Query parameters that no route reads."""

from fastapi import Request

from app import errors
from app.mistakes import nearest


async def only_known_parameters(request: Request) -> None:
    """Refuse a query parameter that the route does not declare: a filter would be ignored. Raises `InvalidRequest`."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
            raise errors.InvalidRequest(
                f"there is no query parameter {name!r:.80}; {hint}", param=name[:80], code="unknown_parameter"
            )
