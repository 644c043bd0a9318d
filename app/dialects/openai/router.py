"""The router of the OpenAI dialect, which has two prefixes."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


class AliasedRouter(APIRouter):
    """Registers each `/v1` route also at `/openai/v1`, where the OpenAPI document omits it."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, endpoint, **options)
        super().add_api_route(f"/openai{path}", endpoint, **{**options, "include_in_schema": False})
