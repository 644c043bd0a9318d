"""Server-sent events about all videos of a project, and the tokens with which a web page opens them."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse

from app.accounts.auth import Caller
from app.dialects.openai.project_events_schemas import StreamToken
from app.dialects.openai.responses import shown
from app.dialects.openai.router import AliasedRouter
from app.http.context import CallerDep, GatewayDep, admit, caller_of, gateway_of
from app.http.openapi import CLIENT_KEY, BearerKey, parameter, returns
from app.http.responses import no_store
from app.http.stream import EVENT_STREAM, RESUME, stream_response

TOKEN = parameter("query", "token", "A token of `POST /v1/events/token` instead of a key, for an EventSource.")

routes = AliasedRouter(tags=["videos"])


async def _reader_of(request: Request) -> Caller:
    """Authenticate by a token, or by a key as anywhere. Raises `AuthenticationFailed`, `RateLimited`."""
    token = request.query_params.get("token")
    if token is None:
        return await caller_of(request)
    return await admit(request, await gateway_of(request).authenticator.authenticate_stream(token))


ReaderDep = Annotated[Caller, Depends(BearerKey(CLIENT_KEY, "An API key of this gateway.", _reader_of))]


async def _waiting_slot(gateway: GatewayDep, caller: ReaderDep) -> AsyncIterator[None]:
    with gateway.waiting.slot(caller.key_id):
        yield


@routes.get(
    "/v1/events",
    response_class=StreamingResponse,
    dependencies=[Depends(_waiting_slot)],
    responses=EVENT_STREAM,
    openapi_extra={"parameters": [*RESUME, TOKEN]},
)
async def stream_project_events(request: Request, gateway: GatewayDep, caller: ReaderDep) -> Response:
    """Stream server-sent events about all your videos: `video.status` and `video.progress` with the video object,
    `video.deleted`, `video.counts` instead of progress while more than 200 run, and `reset` when your list has to be
    read again. Connect first, then read the list. `Last-Event-ID` brings what has changed since."""
    render = partial(shown, gateway=gateway, request=request)
    return stream_response(request, gateway, project_id=caller.project_id, caller=caller, render=render)


@routes.post("/v1/events/token", status_code=201, responses=returns(StreamToken, 201))
async def create_stream_token(gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a token for `GET /v1/events?token=`: a web page can open the stream with it for five minutes, read nothing
    else, and change nothing. An open stream goes on as long as your key is valid."""
    token, expires_at = gateway.authenticator.mint_stream_token(caller)
    return no_store({"object": "events.token", "token": token, "expires_at": expires_at}, status=201)
