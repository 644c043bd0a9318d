"""The OpenAI dialect: unknown paths, methods and ids, and the OpenAPI document."""

import pytest
from dialects.openai_wire import error_of
from harness import Running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/openai/v1/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/videos/a/b/c", 404, "unknown_url"),
        ("PUT", "/v1/videos", 405, "method_not_allowed"),
        ("PATCH", "/v1/videos/video_x", 405, "method_not_allowed"),
        ("POST", "/v1/videos/video_x/content", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_are_errors_in_openais_shape(
    gateway: Running, method: str, path: str, status: int, code: str
) -> None:
    response = await gateway.client.request(method, path)
    error = error_of(response, status)
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/videos", "GET, POST"),
        ("/openai/v1/videos/video_x", "GET, DELETE"),
        ("/v1/videos/video_x/content", "GET, HEAD"),
        ("/v1/webhook_endpoints/whe_x", "GET, POST, DELETE"),
        ("/admin/v1/projects/proj_x", "GET, PATCH"),
        ("/healthz", "GET"),
    ],
)
async def test_all_methods_of_an_address_are_named(gateway: Running, path: str, allowed: str) -> None:
    response = await gateway.client.put(path)
    assert response.headers["allow"] == allowed
    assert error_of(response, 405)["message"].endswith(f"allowed: {allowed}")


async def test_head_answers_with_status_and_headers_only(gateway: Running) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/videos", 405), ("/v1/videos/video_x/content", 404)):
        response = await gateway.client.head(path)
        assert (response.status_code, response.content) == (status, b"")
        assert response.headers["x-request-id"].startswith("req_")


async def test_any_host_header_is_accepted(gateway: Running) -> None:
    for host in ("a b", "[::1", "x:y", ""):
        response = await gateway.client.get("/v1/videos", headers={"host": host})
        assert response.status_code == 200


async def test_the_description_of_the_api_can_be_read(gateway: Running) -> None:
    document = (await gateway.client.get("/openapi.json")).json()
    assert "multipart/form-data" in document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]


@pytest.mark.parametrize(
    "path",
    [
        "%00",
        "video_%00",
        "..%2F..%2Fetc",
        "a%2Fb",
        "x" * 10_000,
        "video_" + "0" * 26,
        "%FF",
        "%F0%9F%98%80",
        "*",
        "'--",
    ],
)
async def test_unknown_ids_are_a_404(gateway: Running, path: str) -> None:
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/content"), ("POST", "/remix")):
        body = {"prompt": "p"} if method == "POST" else None
        error = error_of(await gateway.client.request(method, f"/v1/videos/{path}{tail}", json=body), 404)
        assert len(error["message"]) < 200
    error_of(await gateway.client.get(f"/v1/videos/characters/{path}"), 404)
    error_of(await gateway.client.get(f"/v1/models/{path}"), 404)
    error_of(await gateway.client.get(f"/media/{path}/0.mp4"), 404)
