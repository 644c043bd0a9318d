"""A video's page: its files, attempts, money, webhooks and request; links for colleagues, and its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors
from app.accounts import ledger, projects
from app.admin.schemas import redact
from app.console.cards import Card, card_of, usual_s
from app.console.guard import ConsoleRoute, KeyHolderDep, Visitor, VisitorDep, form_of
from app.console.pages import Values, go, render
from app.console.timeline import timeline_of
from app.db.models import Attempt, Delivery, DeliveryTry, LedgerEntry, Video
from app.http import request_facts
from app.http.context import Gateway, GatewayDep, end_video, origin_of
from app.http.files import bucket_url, content_response, get_output, media_link
from app.jobs import videos, waiting
from app.jobs.waiting import Wait
from app.video import Entry, Operation, Status
from app.webhooks import deliveries
from app.webhooks.events import queue_key_of

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

MAX_ENTRIES = 100
"""Ledger entries and deliveries that a video's page shows."""
LIFETIMES = {3_600: "1 hour", 86_400: "1 day", 7 * 86_400: "7 days"}
"""Lifetimes of links for colleagues in seconds."""
DERIVING = {Operation.remix: "Remix", Operation.extend: "Extend", Operation.edit: "Edit"}
ENTRIES = {
    Entry.reserve: "Held at create",
    Entry.hold: "Held again",
    Entry.settle: "Charged",
    Entry.refund: "Given back",
    Entry.credit: "Credit",
}


@dataclass(frozen=True)
class Behind:
    """All rows behind a video's page."""

    attempts: Sequence[Attempt]
    more_attempts: bool
    entries: Sequence[LedgerEntry]
    deliveries: Sequence[tuple[Delivery, list[DeliveryTry]]]
    derived: Sequence[RowMapping]
    wait: Wait | None
    names: tuple[str, str]


@routes.get("/console/videos/{video_id}")
async def show_video(
    video_id: str, request: Request, gateway: GatewayDep, visitor: VisitorDep, output: int = 0
) -> Response:
    """Show everything about one video; for a page that is open, what changes while it runs."""
    try:
        video = await video_of(gateway, visitor, video_id)
    except errors.NotFound as error:
        if "hx-request" in request.headers:
            raise
        return await _missing(request, gateway, visitor, video_id, error)
    now = gateway.clock()
    async with gateway.db.reading() as connection:
        behind = await _behind(connection, video, now, every_column=visitor.is_operator)
    card = card_of(video, now)
    return await render(
        request,
        "_video.html" if "hx-request" in request.headers else "video.html",
        plays=True,
        card=card,
        video=video,
        file=next((file for file in card.files if file["index"] == output), card.files[0] if card.files else None),
        timeline=timeline_of(video, behind.attempts, now),
        behind=behind,
        money=_money(video, behind.entries),
        entry_words=_words_of,
        requested=Values(_shown_request(video)),
        usual_s=usual_s(gateway, card),
        deriving=_deriving(gateway, visitor, card),
        lifetimes=_lifetimes(video, now),
        now=now,
    )


@routes.get("/console/videos/{video_id}/content/{index}")
@routes.head("/console/videos/{video_id}/content/{index}")
async def play(
    video_id: str,
    index: int,
    request: Request,
    gateway: GatewayDep,
    visitor: VisitorDep,
    download: bool = False,
) -> Response:
    """Send a video file, or part of it; for a player, redirect to a presigned URL of the bucket where there is one."""
    video = await video_of(gateway, visitor, video_id)
    if request.method == "GET" and not download:
        url = await bucket_url(gateway, video, index)
        if url is not None:
            return RedirectResponse(url, 307, {"cache-control": "no-store"})
    response = await content_response(request, gateway, video, index)
    if download:
        shown = response.headers["content-disposition"]
        response.headers["content-disposition"] = shown.replace("inline", "attachment", 1)
    return response


@routes.get("/console/videos/{video_id}/{variant}/{index}")
async def show_picture(
    video_id: str,
    variant: Literal["thumbnail", "spritesheet"],
    index: int,
    request: Request,
    gateway: GatewayDep,
    visitor: VisitorDep,
) -> Response:
    """Send a picture of a video file, which is made when it is first asked for."""
    video = await video_of(gateway, visitor, video_id)
    return await content_response(request, gateway, video, index, variant=variant)


@routes.get("/console/videos/{video_id}/link")
async def lead_to_video(video_id: str, request: Request, visitor: VisitorDep) -> Response:
    """Lead to the page of a video: the answer to a form has this address, which browsers open again."""
    return go(request, f"videos/{video_id}")


@routes.post("/console/videos/{video_id}/link")
async def make_link(video_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show a link to a file that needs no key, until the time that was chosen."""
    form = await form_of(request)
    video = await videos.get_video(gateway.db, video_id, project_id=caller.project_id)
    request_facts.note_video(video)
    lifetime, index = form.get("lifetime", ""), form.get("output", "")
    if lifetime not in map(str, LIFETIMES):
        raise errors.InvalidRequest("choose for how long the link works", param="lifetime", code="invalid_value")
    file = get_output(video, int(index) if index.isdecimal() and len(index) < 3 else None, gateway.clock())
    url, end = media_link(video, file, gateway.links, origin_of(request), lifetime_s=int(lifetime))
    return await render(
        request,
        "_link.html" if "hx-request" in request.headers else "link.html",
        url=url,
        ends_at=datetime.fromtimestamp(end, UTC),
        is_shorter=end < int(gateway.clock().timestamp()) + int(lifetime),
        video_id=video_id,
    )


@routes.post("/console/videos/{video_id}/deliveries/{delivery_id}")
async def send_again(
    video_id: str, delivery_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep
) -> Response:
    """Send an event about a video once more."""
    async with gateway.db.transaction() as session:
        await deliveries.redeliver(
            session, delivery_id, project_id=caller.project_id, video_id=video_id, now=gateway.clock()
        )
    gateway.wake()
    return go(request, f"videos/{video_id}", "resent")


@routes.get("/console/videos/{video_id}/end")
async def confirm_end(
    video_id: str, request: Request, gateway: GatewayDep, visitor: VisitorDep, caller: KeyHolderDep
) -> Response:
    """Ask before a video is cancelled or deleted."""
    card = card_of(await video_of(gateway, visitor, video_id), gateway.clock())
    return await render(request, "end.html", card=card)


@routes.post("/console/videos/{video_id}/end")
async def end(video_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Cancel a running video, or delete one that has ended, as the page has said."""
    has_ended = {"yes": True, "no": False}.get((await form_of(request)).get("ended", ""))
    cancelled = await end_video(gateway, caller, video_id, has_ended=has_ended)
    return go(request, f"videos/{video_id}", "cancelled") if cancelled else go(request, "videos", "deleted")


async def video_of(gateway: Gateway, visitor: Visitor, video_id: str, *, deleted: bool = False) -> Video:
    """Read a video that the visitor may see. Raises `NotFound`."""
    video = await videos.get_video(gateway.db, video_id, project_id=visitor.project_id, deleted=deleted)
    request_facts.note_video(video)
    return video


async def _missing(
    request: Request, gateway: Gateway, visitor: Visitor, video_id: str, error: errors.NotFound
) -> Response:
    """The page of a video that is not there, with the time since when if its row is still known."""
    try:
        deleted_at = (await video_of(gateway, visitor, video_id, deleted=True)).deleted_at
    except errors.NotFound:
        deleted_at = None
    return await render(request, "missing.html", status=404, error=error, deleted_at=deleted_at)


async def _behind(connection: AsyncConnection, video: Video, now: datetime, *, every_column: bool) -> Behind:
    attempts, more = await videos.list_shown_attempts(connection, video.id, every_column=every_column)
    entries = await ledger.list_entries(
        connection, project_id=video.project_id, video_id=video.id, after=None, limit=MAX_ENTRIES
    )
    sent, _ = await deliveries.list_deliveries(
        connection, project_id=video.project_id, video_id=video.id, after=None, limit=MAX_ENTRIES
    )
    is_queued, is_completed = video.status is Status.queued, video.status is Status.completed
    return Behind(
        attempts,
        more,
        entries[::-1],
        sent,
        await videos.list_derived(connection, video) if is_completed else (),
        await waiting.read_wait(connection, video.id, now=now) if is_queued else None,
        await projects.project_and_key(connection, video.project_id, video.key_id),
    )


def _money(video: Video, entries: Sequence[LedgerEntry]) -> dict[str, int | None]:
    """Amounts in micros: the estimate, what is held now, what was charged and given back."""
    is_known = len(entries) < MAX_ENTRIES and all(entry.amount_micros is not None for entry in entries)
    amounts = [entry.amount_micros or 0 for entry in entries]
    return {
        "Estimate": video.cost_estimate_micros,
        "Held": -sum(amounts) - (video.cost_micros or 0) if is_known else None,
        "Charged": video.cost_micros if video.cost_micros is not None or video.settlement == "settled" else 0,
        "Given back": sum(map(_given_back, entries)) if is_known else None,
    }


def _given_back(entry: LedgerEntry) -> int:
    """The part of a hold that an entry gives back: all of it, or what a charge has left of it."""
    return max(0, entry.amount_micros or 0) if entry.kind in (Entry.refund, Entry.settle) else 0


def _words_of(entry: LedgerEntry) -> str:
    """The words for an entry; those for a charge agree with `_given_back`."""
    rest = ", the rest given back" if entry.kind == Entry.settle and _given_back(entry) else ""
    return f"{ENTRIES[entry.kind]}{rest}"


def _shown_request(video: Video) -> dict[str, Any]:
    """The request without what may be a secret."""
    requested: dict[str, Any] = redact(video.request)
    if "webhook" in requested:
        hook = video.request["webhook"]  # its path and query often hold a token
        requested["webhook"] = {"url": queue_key_of(hook["url"]), "style": hook["style"]}
    return requested


def _deriving(gateway: Gateway, visitor: Visitor, card: Card) -> dict[str, str]:
    """Operations by which the model that made a video makes others from it, with their words."""
    if visitor.caller is None or not card.files:
        return {}
    name = f"{card.row['provider']}/{card.row['upstream_model']}"
    try:
        found = gateway.router.routes(name)
    except errors.ModelNotFound:
        return {}
    able = [route.capabilities.operations for route in found if visitor.caller.may_use(card.row["model"], route)]
    return {str(operation): word for operation, word in DERIVING.items() if any(operation in one for one in able)}


def _lifetimes(video: Video, now: datetime) -> dict[int, str]:
    """The lifetimes that a link to the files can have, the shortest at least."""
    left_s = float("inf") if video.expires_at is None else (video.expires_at - now).total_seconds()
    return {seconds: words for seconds, words in LIFETIMES.items() if seconds <= max(left_s, min(LIFETIMES))}
