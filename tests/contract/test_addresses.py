"""Slashes too many in paths: read as without them at every dialect, and nowhere else."""

import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from dialects.vendors import LUNOS
from harness import ORIGIN, Running, StartGateway
from money import ADMIN
from structlog.testing import capture_logs

pytestmark = pytest.mark.anyio

SPELLINGS = {
    "one at the end": lambda path: f"{path}/",
    "several at the end": lambda path: f"{path}///",
    "two at the start": lambda path: f"/{path}",
    "two within": lambda path: f"//{path[1:].replace('/', '//')}",
    "at every place": lambda path: f"//{path[1:].replace('/', '///')}//",
}


def spelled(spelling: str, path: str) -> str:
    """The whole URL of a path, written with more slashes."""
    path, mark, query = path.partition("?")
    return f"{ORIGIN}{SPELLINGS[spelling](path)}{mark}{query}"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> DialectCase:
    return CASES[request.param]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_video_is_created_and_read_with_slashes_too_many(
    gateway: Running, case: DialectCase, spelling: str
) -> None:
    with capture_logs() as logs:
        response = await gateway.client.post(spelled(spelling, case.create), json=case.body)
    assert response.status_code == case.created, response.text
    assert [entry["path"] for entry in logs if entry["event"] == "request"] == [case.create]
    video_id = case.id_of(response.json())
    path = case.get.format(id=video_id)
    response = await gateway.client.get(spelled(spelling, path))
    assert (response.status_code, response.json()) == (200, (await gateway.client.get(path)).json())


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_an_error_with_slashes_too_many_has_the_shape_of_its_dialect(
    gateway: Running, case: DialectCase, spelling: str
) -> None:
    response = await gateway.client.post(spelled(spelling, case.create), json=case.bad_body)
    assert response.status_code == 400
    assert case.message_of(response.json())
    response = await gateway.client.put(spelled(spelling, case.create))
    assert response.status_code == 405
    assert response.headers["allow"]


@pytest.mark.parametrize("end", ["/", "//"])
async def test_every_route_of_openai_takes_a_slash_at_the_end(gateway: Running, end: str) -> None:
    video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
    one = f"videos/{video['id']}"
    for path in ("models", "models/sandbox/testcard", "videos", one, "webhook_endpoints", "balance"):
        plain = await gateway.client.get(f"/v1/{path}")
        assert (await gateway.client.get(f"{ORIGIN}/v1/{path}{end}")).json() == plain.json()
        assert plain.status_code == 200, path
    content = await gateway.client.get(f"{ORIGIN}/v1/{one}/content{end}", headers={"range": "bytes=4-7"})
    assert (content.status_code, content.content) == (206, b"ftyp")
    deleted = await gateway.client.delete(f"{ORIGIN}/v1/{one}{end}")
    assert deleted.json()["deleted"] is True


@pytest.mark.parametrize(
    "path",
    [
        *("//admin/v1/projects", "/admin//v1/projects", "/admin/v1/projects/", "//admin/v1/projects/"),
        *("//metrics", "/metrics/", "//healthz", "/healthz/", "//docs", "/docs/", "//openapi.json", "//readyz"),
        *("/v1/..//admin/v1/projects", "/v1//%2e%2e/admin/v1/projects", "/%2Fadmin/v1/projects/"),
    ],
)
async def test_slashes_beside_the_dialects_stay(start_gateway: StartGateway, path: str) -> None:
    """Otherwise a proxy that blocks `/admin` would pass `//admin`."""
    async with start_gateway(admin_key=ADMIN) as gateway:
        answer = await gateway.client.get(f"{ORIGIN}{path}", headers={"authorization": f"Bearer {ADMIN}"})
    assert answer.status_code == 404


async def test_links_and_callbacks_have_one_spelling(gateway: Running) -> None:
    video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
    path = video["output"]["url"].removeprefix(ORIGIN)
    for wrong in (f"/{path}", path.replace("/media/", "/media//"), path.replace("?", "/?")):
        assert (await gateway.client.get(ORIGIN + wrong)).status_code == 404, wrong
    (attempt,) = await gateway.attempts(video["id"])
    token = gateway.gateway.links.callback_token(attempt.id)
    for before in ("/", "/video"):
        with capture_logs() as logs:
            answer = await gateway.client.post(f"{ORIGIN}{before}/callbacks/{attempt.id}/{token}")
        assert answer.status_code == 404
        assert [entry["path"] for entry in logs] == [f"{before}/callbacks/"]
        assert token not in str(logs)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/videos%2F", "/v1/%2Fvideos", "/v1%2F%2Fvideos", "/%2Fv1/videos", "/v1/%2Fvideos/", "//v1/%2Fvideos"),
        *("/v1/videos/%2F", "/v1/videos/%2F/"),
    ],
)
async def test_an_encoded_slash_is_part_of_a_segment(gateway: Running, path: str) -> None:
    assert (await gateway.client.get(f"{ORIGIN}{path}")).status_code == 404


async def test_encoded_slashes_of_ids_and_models_stay(gateway: Running) -> None:
    video_id = (await gateway.create())["id"]
    for prefix in ("a%2Fb:", "a/b:", "a%2F%2Fb%2F:", "video-op%3Auser123%3A", "%C3%A9:", "100%25%2F%2F:"):
        for url in (f"{ORIGIN}{LUNOS}/{prefix}{video_id}", f"{ORIGIN}/{LUNOS}//{prefix}{video_id}/"):
            assert (await gateway.client.get(url)).json()["id"] == video_id, url
    for url in ("/v1/models/sandbox%2Ftestcard/", "//v1/models//sandbox/testcard"):
        assert (await gateway.client.get(ORIGIN + url)).json()["id"] == "sandbox/testcard"
    unknown = await gateway.client.get(f"{ORIGIN}//v1/models/a%2F%2Fb/")
    assert "a//b" in unknown.json()["error"]["message"]


@pytest.mark.parametrize("path", ["//videos", "/videos/", "///models"])
async def test_a_base_url_with_a_slash_and_without_its_version_is_named(gateway: Running, path: str) -> None:
    answer = await gateway.client.get(f"{ORIGIN}{path}")
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert f"at /v1/{path.lstrip('/')}: the base URL has to end with /v1" in message
