"""The OpenAPI document and the responses are the same: the transport of the tests compares all of them, see
`described.py`; here every route succeeds once, and the document itself is checked."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from described import DescribedTransport, document, operation_of, problems
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import KEY, Reset, sample_mp4, serve
from harness import ORIGIN, Running, StartGateway
from jsonschema import Draft202012Validator
from money import ADMIN, Operator, operator_of

from app.accounts.reports import DIMENSIONS

pytestmark = pytest.mark.anyio

MODEL = "up/sora-2"
APILAPLAS = "/v2/generate/video/luma-ai"
EVENTS = ["video.completed", "video.failed", "video.cancelled"]


@pytest.fixture
async def everything(fake: FakeOpenAI, start_gateway: StartGateway) -> AsyncIterator[Operator]:
    """A gateway with an upstream, an operator and a webhook endpoint."""
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        options = {
            "providers": {"up": upstream},
            "prices": {MODEL: 0.1},
            "default_model": MODEL,
            "dialects": {"luma": {"hold_s": 0.1}},
        }
        async with start_gateway(admin_key=ADMIN, **options) as gateway, operator_of(gateway) as operator:
            yield operator


async def call(client: httpx.AsyncClient, line: str, **options: Any) -> Any:
    """Send a request, `POST /v1/videos`, which has to succeed; returns its JSON."""
    method, path = line.split()
    response = await client.request(method, path, **options)
    assert response.is_success, (line, response.text)
    return response.json() if response.headers["content-type"] == "application/json" else None


async def use_webhooks(client: httpx.AsyncClient, url: str) -> str:
    body = {"name": "mine", "url": url, "event_types": EVENTS}
    endpoint = (await call(client, "POST /v1/webhook_endpoints", json=body))["id"]
    for line in ("/v1/webhook_endpoints", f"/v1/webhook_endpoints/{endpoint}", "/v1/webhook_event_types"):
        await call(client, f"GET {line}")
    await call(client, "GET /v1/webhooks/secret")
    await call(client, f"POST /v1/webhook_endpoints/{endpoint}", json={"name": "renamed"})
    await call(client, f"POST /v1/webhook_endpoints/{endpoint}/rotate_secret")
    await call(client, f"POST /v1/webhook_endpoints/{endpoint}/test", json={"event_type": "video.failed"})
    return str(endpoint)


async def use_videos(gateway: Running, endpoint: str) -> str:
    """All calls about videos; returns the id of a finished one."""
    client = gateway.client
    body = {"prompt": "a paper boat", "model": MODEL, "seconds": 4, "metadata": {"order": "17"}}
    await call(client, "POST /v1/videos?dryRun=true", json=body)
    video = await call(client, "POST /v1/videos", json=body, headers={"idempotency-key": "once"})
    await call(client, "POST /v1/videos", json=body, headers={"idempotency-key": "once"})
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed", done
    path = f"/v1/videos/{video['id']}"
    links = [done["output"][name].removeprefix(ORIGIN) for name in ("url", "thumbnail_url", "spritesheet_url")]
    for line in ("/v1/videos", path, f"{path}/events", f"{path}/content", *links):
        await call(client, f"GET {line}")
    source = {"prompt": "in snow", "video": {"id": video["id"]}}
    for line, given in (
        (f"POST {path}/remix", {"prompt": "in snow"}),
        ("POST /v1/videos/edits", source),
        ("POST /v1/videos/extensions", {**source, "seconds": 4}),
    ):
        await call(client, f"{line}?dryRun=true", json=given)
        derived = await call(client, line, json=given)
    await call(client, f"DELETE /v1/videos/{derived['id']}")
    files = {"video": ("ada.mp4", sample_mp4(), "video/mp4")}
    character = await call(client, "POST /v1/videos/characters", data={"name": "Ada", "model": MODEL}, files=files)
    await call(client, f"GET /v1/videos/characters/{character['id']}")
    for about in (path, f"/v1/webhook_endpoints/{endpoint}"):
        delivery = (await call(client, f"GET {about}/deliveries"))["data"][0]["id"]
        await call(client, f"POST {about}/deliveries/{delivery}/redeliver")
    await call(client, f"GET {path}/attempts")
    await call(client, "GET /v1/webhook_deliveries")
    since = {"since": "2026-01-01T00:00:00Z"}
    await call(client, "POST /v1/webhook_deliveries/redeliver_failed", json=since)
    await call(client, f"DELETE /v1/webhook_endpoints/{endpoint}")
    for line in (
        "/v1/models",
        f"/v1/models/{MODEL}",
        "/v1/balance",
        "/v1/me",
        "/v1/usage",
        "/healthz",
        "/readyz",
        "/metrics",
    ):
        await call(client, f"GET {line}")
    return str(video["id"])


async def use_other_dialects(client: httpx.AsyncClient, video_id: str) -> None:
    for case in CASES.values():
        body = {**case.body, "model": MODEL}
        for _ in range(2):  # the second responds 200
            await call(client, f"POST {case.create}", json=body, headers={"idempotency-key": f"of {case.create}"})
        await call(client, f"GET {case.get.format(id=video_id)}")
    thumbnail = (await call(client, f"GET /luma/generations/{video_id}"))["thumbnail"]["url"]
    await call(client, f"GET {thumbnail.removeprefix(ORIGIN)}")
    await call(client, "POST /luma/tasks", json={"ids": [video_id]})
    await call(client, f"POST /luma/generations/{video_id}/extend", json={"user_prompt": "it turns"})
    await call(client, "POST /luma/generations_sync", json={"user_prompt": "a paper boat", "model": "sandbox/testcard"})
    await call(client, f"GET {APILAPLAS}/generations?generation_ids={video_id}")
    for path in ("generations", f"generations/{video_id}/extend"):
        for _ in range(2):
            body, headers = {"user_prompt": "a paper boat"}, {"idempotency-key": f"of {path}"}
            await call(client, f"POST /luma-ai/{path}", json=body, headers=headers)
    await call(client, f"GET /luma-ai/generation?ids[0]={video_id}")
    await call(client, "GET /public/models")


async def use_request_log(client: httpx.AsyncClient, video_id: str) -> None:
    await call(client, "GET /v1/requests?summary=true")
    await call(client, f"GET /v1/requests/{video_id}")
    await call(client, "GET /v1/keys")
    await call(client, f"DELETE /v1/requests/{video_id}/payloads")


async def administer(operator: Operator, fake: FakeOpenAI, video_id: str) -> None:
    project = await operator.ask("POST", "projects", status=201, name="shop")
    key = await operator.ask("POST", "keys", status=201, name="shop", project=project["id"])
    lists = ("projects", "keys", "ledger", "audit")
    for path in (*lists, f"projects/{project['id']}", f"keys/{key['id']}", f"videos/{video_id}"):
        await operator.ask("GET", path)
    await operator.ask("GET", "videos?q=boat&summary=true")
    for path in ("providers", "models", "settings", "status", "webhook_deliveries"):
        await operator.ask("GET", path)
    await operator.ask("POST", "providers/up/breaker", close=True)
    await operator.ask("POST", "providers/up/check")
    await operator.ask("PATCH", f"projects/{project['id']}", name="web shop")
    await operator.ask("POST", f"projects/{project['id']}/credits", status=201, amount_usd=5)
    await operator.ask("PATCH", f"keys/{key['id']}", requests_per_minute=60)
    await operator.ask("DELETE", f"keys/{key['id']}")
    await operator.usage(",".join(DIMENSIONS))
    assert (await operator.client.get("/admin/v1/usage?format=csv")).status_code == 200
    fake.script("submit", *[Reset()] * 20)
    await operator.gateway.worker.run_once()
    (first, *_) = (await operator.ask("GET", "repairs"))["data"]
    await operator.ask("POST", f"repairs/{first['id']}", action="fail")


async def test_every_route_responds_as_the_document_describes(everything: Operator, fake: FakeOpenAI) -> None:
    gateway = everything.gateway
    async with serve(Receiver()) as url:
        endpoint = await use_webhooks(gateway.client, f"{url}/hook")
        video_id = await use_videos(gateway, endpoint)
    await use_other_dialects(gateway.client, video_id)
    await use_request_log(gateway.client, video_id)
    await administer(everything, fake, video_id)
    await call(gateway.client, "POST /v1/events/token")
    gateway.gateway.listener.close()  # or the streams would not end
    await call(gateway.client, "GET /v1/events")
    await call(everything.client, "GET /admin/v1/events")
    transport = gateway.client._transport
    assert isinstance(transport, DescribedTransport)
    successes = {
        (operation["operationId"], int(status))
        for operation in operations()
        for status in operation["responses"]
        if status in ("200", "201", "202")
    }
    assert successes - transport.described == set()


def operations() -> list[dict[str, Any]]:
    return [operation for path in document()["paths"].values() for operation in path.values()]


VIDEO = {
    "id": "video_x",
    "object": "video.deleted",
    "deleted": True,
}


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "application/json", {**VIDEO, "more": 1}),
        (200, "application/json", {"id": "video_x", "deleted": True}),
        (200, "application/json", {**VIDEO, "id": 7}),
        (200, "text/plain", None),
        (200, "application/json", None),
        (200, "", None),
        (201, "application/json", VIDEO),
        (404, "application/json", {"message": "an error of another dialect"}),
    ],
)
def test_a_response_that_differs_from_the_document_is_found(status: int, kind: str, body: Any) -> None:
    operation = operation_of("DELETE", "/openai/v1/videos/video_x")
    assert operation is not None
    assert list(problems(operation, 200, "application/json", VIDEO)) == []
    assert list(problems(operation, status, kind, body))


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [("date", "2026-11-26", "26 November"), ("date-time", "2026-11-26T12:00:00Z", "2026-11-26T12:00:00")],
)
def test_a_wrong_day_or_time_is_found(form: str, right: str, wrong: str) -> None:
    content = {"application/json": {"schema": {"type": "string", "format": form}}}
    for text, found in ((right, False), (wrong, True)):
        assert bool([*problems({"responses": {"200": {"content": content}}}, 200, "application/json", text)]) == found


async def test_the_document_names_the_address_at_which_it_was_read(gateway: Running) -> None:
    for origin in ("http://gateway.test", "http://video.example.com:8080"):
        response = await gateway.client.get(f"{origin}/openapi.json")
        assert response.json()["servers"] == [{"url": origin}]


def test_every_success_has_a_schema() -> None:
    for operation in operations():
        for status, response in operation["responses"].items():
            if status in ("200", "201", "202", "206"):
                assert response["content"], (operation["operationId"], status)
                for kind, content in response["content"].items():
                    assert content.get("schema"), (operation["operationId"], status, kind)


def test_every_parameter_and_operation_is_described() -> None:
    for operation in operations():
        assert operation["description"], operation["operationId"]
        for found in operation.get("parameters", ()):
            assert found.get("description"), (operation["operationId"], found["name"])


def test_every_reference_leads_to_a_component_and_every_component_is_used() -> None:
    components = document()["components"]["schemas"]
    used = {ref.rpartition("/")[2] for ref in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document()))}
    assert used == components.keys()


def test_every_example_is_an_object_of_its_component() -> None:
    components = document()["components"]["schemas"]
    examples = {name: example for name, schema in components.items() for example in schema.get("examples", ())}
    for name, example in examples.items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
        assert [error.message for error in Draft202012Validator(whole).iter_errors(example)] == [], name
    bodies = {
        content["schema"]["$ref"].rpartition("/")[2]
        for operation in operations()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    }
    assert {name for name in bodies if name.startswith("Create")} <= examples.keys()
    assert {"Video", "Model", "OpenAIError", "LumenGeneration", "LunosGeneration", "Project"} <= examples.keys()


def test_operations_are_called_like_their_functions() -> None:
    names = [operation["operationId"] for operation in operations()]
    assert len(set(names)) == len(names)
    assert {"create_video", "retrieve_video", "lumen_create_generation", "admin_create_key"} <= set(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z0-9]+){0,4}", name) for name in names), names


def test_every_way_to_send_a_key_is_described() -> None:
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            schemes = [name for way in operation["security"] for name in way]
            if path.startswith("/admin/"):
                assert schemes == ["admin_key"]
            elif path.startswith(("/v1/", "/v2/", "/luma", "/public/")):
                assert schemes == ["bearer", "api-key", "x-api-key", "x-goog-api-key"]
            else:
                assert {} in operation["security"] or not schemes
            assert set(schemes) <= document()["components"]["securitySchemes"].keys()


def test_a_medium_is_text_or_an_object_in_json_and_may_be_a_file_in_multipart() -> None:
    bodies = document()["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    schemas = document()["components"]["schemas"]
    kinds = {}
    for kind, content in bodies.items():
        body = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        one, several, null = body["properties"]["input_reference"]["anyOf"]
        assert several["items"] == one
        assert null == {"type": "null"}
        kinds[kind] = schemas[one["$ref"].rpartition("/")[2]]["anyOf"]
    text, in_object = kinds["application/json"]
    assert text["type"] == "string"
    assert schemas[in_object["$ref"].rpartition("/")[2]]["properties"].keys() == {"image_url", "video_url", "url"}
    assert [choice.get("format") for choice in kinds["multipart/form-data"]] == [None, "binary"]
