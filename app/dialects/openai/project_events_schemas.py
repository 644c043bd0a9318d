"""Model of the response with a token of an event stream, for the OpenAPI document."""

from typing import Literal

from app.http.openapi import ResponseModel


class StreamToken(ResponseModel):
    """A token that opens the event stream of a project."""

    object: Literal["events.token"]
    token: str
    expires_at: int
    """Unix time until which a stream can be opened with it."""
