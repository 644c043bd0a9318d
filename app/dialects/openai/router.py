"""The router of the OpenAI dialect, which has two prefixes, and the parameters of its lists."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query

After = Annotated[str | None, Query(description="The `last_id` of the page before.")]
Limit = Annotated[int, Query(ge=0, le=100, description="Longest page.")]


class AliasedRouter(APIRouter):
    """Registers each `/v1` route also at `/openai/v1`, where the OpenAPI document omits it."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, endpoint, **options)
        super().add_api_route(f"/openai{path}", endpoint, **{**options, "include_in_schema": False})
