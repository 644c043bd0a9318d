"""Administration API, repairs: submits whose outcome is unknown, finished tasks without a file, and the operator's
decisions about them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app import errors
from app.accounts import pricing
from app.accounts.audit import Actor
from app.admin import responses
from app.admin.schemas import listing
from app.db.models import Attempt, Video
from app.http.body import body_of, body_schema, validated
from app.http.context import Gateway, GatewayDep
from app.http.openapi import returns
from app.http.operator import ActorDep
from app.http.parameters import only_known_parameters
from app.http.responses import no_store
from app.jobs import reconcile
from app.jobs.candidates import find_candidates
from app.providers.base import ListedTask

routes = APIRouter(tags=["administration"], dependencies=[Depends(only_known_parameters)])


class Repair(BaseModel):
    """POST /admin/v1/repairs/{attempt_id}."""

    model_config = ConfigDict(
        title="RepairDecision",
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"action": "find", "upstream_ref": "task-17"}]},
    )

    action: Literal["find", "resubmit", "fail", "fetch"]
    upstream_ref: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """With `find`: the upstream's id of the task, as its console shows it."""
    url: Annotated[str, Field(min_length=1, max_length=8_000)] | None = None
    """With `fetch`: the http(s) URL of the finished file."""


@routes.get("/admin/v1/repairs", responses=returns(responses.RepairList))
async def list_repairs(
    gateway: GatewayDep,
    candidates: Annotated[bool, Query(description="True: ask the vendors for tasks of that minute.")] = False,
) -> Response:
    """List submits whose outcome is unknown (`reason` is `unknown_outcome`), oldest first: their possible cost is held
    until you decide. Then finished tasks of the last 30 days whose file could not be had (`no_file`), newest first:
    they are refunded, and `error.body` is the upstream's answer.

    With `candidates=true` vendors that have a list of tasks are asked for those that were created within a minute of
    the submit and that no job of this gateway has: one of them may be the lost one, or another program's."""
    return no_store(listing(await repair_objects(gateway, candidates=candidates)))


async def repair_objects(gateway: Gateway, *, candidates: bool | str) -> list[dict[str, Any]]:
    """The documents of the submits that wait for a decision and of the tasks without a file. `candidates` is true to
    ask the vendors of all submits for their tasks, or the id of the only one to ask for."""
    async with gateway.db.reading() as connection:
        undecided = await reconcile.list_undecided(connection)
        without_file = await reconcile.list_without_file(connection, now=gateway.clock())
    attempts = [attempt for attempt, _ in undecided if candidates is True or candidates == attempt.id]
    tasks = await find_candidates(attempts, db=gateway.db, providers=gateway.providers)
    found = [_undecided(attempt, video, gateway, tasks.get(attempt.id)) for attempt, video in undecided]
    return found + [_without_file(attempt, video) for attempt, video in without_file]


@routes.post(
    "/admin/v1/repairs/{attempt_id}",
    responses=returns(responses.DecidedRepair),
    openapi_extra=body_schema(Repair),
)
async def decide_repair(attempt_id: str, request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Decide on one submit: `find` resumes the upstream's task `upstream_ref`, `resubmit` submits once more, `fail`
    refunds. Or `fetch` the file of a finished task from `url`; nothing is charged."""
    async with body_of(request, Repair) as body:
        wire = validated(Repair, body, keep_nulls=True)
    await decide(gateway, actor, attempt_id, wire)
    return JSONResponse({"id": attempt_id, "object": "repair.decided", "action": wire.action})


async def decide(gateway: Gateway, actor: Actor, attempt_id: str, wire: Repair) -> None:
    """Carry out a decision. Raises `NotFound`, `InvalidRequest`, `Conflict` and `UpstreamError`; then nothing has
    changed."""
    deadline_s, now = gateway.settings.job_deadline_s, gateway.clock()
    match wire.action:
        case "find":
            await reconcile.confirm_by_operator(
                attempt_id,
                wire.upstream_ref,
                db=gateway.db,
                providers=gateway.providers,
                store=gateway.store,
                links=gateway.links,
                deadline_s=deadline_s,
                actor=actor,
                now=now,
            )
        case "resubmit":
            await reconcile.resubmit_by_operator(gateway.db, attempt_id, deadline_s=deadline_s, actor=actor, now=now)
        case "fail":
            await reconcile.give_up_by_operator(gateway.db, attempt_id, actor=actor, now=now)
        case "fetch" if wire.url is None:
            raise errors.InvalidRequest("url is required with fetch", param="url", code="missing_parameter")
        case "fetch":
            await reconcile.fetch_by_operator(
                attempt_id,
                wire.url,
                db=gateway.db,
                providers=gateway.providers,
                allow=gateway.settings.allow_networks,
                deadline_s=deadline_s,
                actor=actor,
                now=now,
            )
    gateway.wake()


def _undecided(
    attempt: Attempt, video: Video, gateway: Gateway, candidates: Sequence[ListedTask] | None
) -> dict[str, Any]:
    given_back = attempt.ended_at and attempt.ended_at + timedelta(seconds=gateway.settings.late_watch_s)
    return {
        **_repair(attempt, video),
        "reason": "unknown_outcome",
        "held_usd": pricing.dollars(video.hold_micros),
        "given_back_at": given_back and given_back.isoformat(),
        "actions": ["find", "resubmit", "fail"],
        "candidates": candidates and [_candidate(task) for task in candidates],
    }


def _candidate(task: ListedTask) -> dict[str, Any]:
    return {
        "upstream_ref": task.ref,
        "created_at": task.created_at.isoformat(),
        "upstream_model": task.model,
        "upstream_status": task.raw_status,
    }


def _without_file(attempt: Attempt, video: Video) -> dict[str, Any]:
    none = {"held_usd": 0, "given_back_at": None}
    return {**_repair(attempt, video), "reason": "no_file", **none, "actions": ["fetch"], "candidates": None}


def _repair(attempt: Attempt, video: Video) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "object": "repair",
        "video": video.id,
        "video_status": str(video.status),
        "project": video.project_id,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
        "upstream_ref": attempt.upstream_ref,
        "submitted_at": attempt.submitted_at and attempt.submitted_at.isoformat(),
        "model": video.model,
        "seconds": video.request.get("seconds"),
        "prompt": str(video.request["prompt"])[:200],
        "error": {"code": attempt.error_code, "message": attempt.error_message, "body": attempt.error_body},
    }
