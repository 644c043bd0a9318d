"""Loaded by schemathesis: what is made leads to what can be done with it, and one check of our own."""

import os
import random
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

MAKERS = {
    "/v1/videos": "video_id",
    "/v1/videos/generations": "video_id",
    "/v1/video/generations": "video_id",
    "/luma/generations": "video_id",
    "/v2/generate/video/luma-ai/generation": "video_id",
    "/v1/webhook_endpoints": "endpoint_id",
    "/admin/v1/projects": "project_id",
    "/admin/v1/keys": "key_id",
}
"""Paths whose POST answers with the `id` of something new, and what paths call it."""

FINISHED = Path("linked_videos")
FROM_SOURCE = ("/v1/videos/edits", "/v1/videos/extensions")
KEPT = 0.3
MEDIA = ("Media", "Base64Media", "MediaPart", "Base64MediaPart", "SourceVideo", "SourceVideoPart")
"""Components of which the gateway takes more than is described: an empty medium is none, a list of one is one."""
MODELS: dict[str, Any] = {}
"""The components of the document, by name."""


def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Add a link from each maker to each call about what it made; describe media and events as anything."""
    MODELS.update(raw_schema["components"]["schemas"])
    raw_schema["components"]["schemas"].update((name, {}) for name in MEDIA)
    for path in ("/v1/videos/{video_id}/events", "/v1/events", "/admin/v1/events"):
        stream = raw_schema["paths"][path]["get"]["responses"]["200"]
        stream["content"] = {"text/event-stream": {}}  # schemathesis compares the schema with single events
    for maker, name in MAKERS.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {f"path.{name}": "$response.body#/id"},
            }
            for path, operations in raw_schema["paths"].items()
            if f"{{{name}}}" in path
            and path.startswith("/admin/") == maker.startswith("/admin/")
            and not path.endswith("/events")  # a stream that ends with the video
            for operation in operations.values()
        }
        for status, answer in raw_schema["paths"][maker]["post"]["responses"].items():
            if status.startswith("2"):
                answer["links"] = links


def map_case(context: HookContext, case: "Case[Any]") -> "Case[Any]":
    """Take most fields out of what should be accepted: all that there are contradict each other."""
    if not isinstance(case.body, dict) or case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    (content, *_) = case.operation.definition.raw["requestBody"]["content"].values()
    required = MODELS[content["schema"]["$ref"].rpartition("/")[2]].get("required", [])
    chance = random.Random(repr(case.body))
    case.body = {name: value for name, value in case.body.items() if name in required or chance.random() < KEPT}
    if case.path in FROM_SOURCE:
        case.body["video"] = {"id": FINISHED.read_text().strip().strip('"')}
    return case


def filter_case(context: HookContext, case: "Case[Any]") -> bool:
    """In a form everything is text, so that a number where a boolean belongs may be a right one."""
    if case.media_type == "application/json" or case.meta is None or not isinstance(case.body, dict):
        return True
    return case.meta.generation.mode.is_positive or not any(isinstance(v, int | float) for v in case.body.values())


def before_call(context: HookContext, case: "Case[Any]", kwargs: dict[str, Any]) -> None:
    """Shorten the `wait` of a request."""
    if isinstance(case.query.get("wait"), int | float):
        case.query["wait"] = min(case.query["wait"], 0.1)


def strangers_see_nothing(ctx: CheckContext, response: Response, case: "Case[Any]") -> None:
    """A resource that one key reads by its id is hidden from another key."""
    asked, raw = response.request, case.operation.definition.raw
    if asked.method != "GET" or response.status_code != 200 or "_id}" not in case.path or not raw.get("security"):
        return
    stranger = {"authorization": f"Bearer {os.environ['FUZZ_STRANGER']}"}
    answer = httpx.get(str(asked.url), headers=stranger, timeout=20, trust_env=False)
    nothing = answer.status_code in (401, 404) or answer.json().get("data") == []
    assert nothing, f"a stranger is answered {answer.status_code}: {answer.text[:200]}"


# Called rather than used as decorators, which are untyped where schemathesis is not installed.
schemathesis.hook(before_load_schema)
schemathesis.hook(map_case)
schemathesis.hook(filter_case)
schemathesis.hook(before_call)
schemathesis.check(strangers_see_nothing)
