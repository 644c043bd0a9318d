"""JSON responses that must not be cached, and the list envelope."""

from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse


def no_store(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """A JSON response with `cache-control: no-store`."""
    return JSONResponse(content, status_code=status, headers={"cache-control": "no-store", **(headers or {})})


def page_of(data: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """OpenAI's list object; clients request the next page with `after=<last_id>` while `has_more`."""
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": list(data), "first_id": ends[0], "last_id": ends[1], "has_more": has_more}
