"""Parameters of lists made to break the gateway: each is refused with one sentence, or finds nothing."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from harness import StartGateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from money import ADMIN, Operator, operator_of
from refusals import refused

from app.http.filters import ListQuery

pytestmark = pytest.mark.anyio

LISTS = ("/v1/videos", "/admin/v1/videos")
LONG = "x" * 2_001
TEXTS = ("%", "_", "\\", "'", "a'--", ".*", "$$", "{", ":x", "%(x)s", "☃", "😀", "\u202e", "\r\n")


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        yield operator


async def ask(operator: Operator, path: str, query: str, param: str) -> str:
    client = operator.client if path.startswith("/admin") else operator.gateway.client
    return refused(await client.get(f"{path}?{query}"), param)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query",
    [
        *("status=", "status=done", "status=Failed", "status=failed,queued", "status=%00", "summary=2", "summary="),
        *(f"{name}=" for name in ("model", "key", "provider", "user", "app", "q", "created_after", "created_before")),
        *(f"{name}=a%00b" for name in ("model", "key", "provider", "user", "app", "q")),
        *(f"{name}={LONG}" for name in ("model", "key", "provider", "user", "app", "q")),
        *(
            f"created_after={value}"
            for value in (
                *(
                    "now",
                    "-1",
                    "1e9",
                    "nan",
                    "inf",
                    "1764180000000",
                    "9999999999999999999",
                    "%D9%A1",
                    "1.1234567",
                    "0x10",
                ),
                *("2026-11-01", "2026-13-01T00:00:00Z", "2026-11-01T00:00:00", "9999-01-01T00:00:00Z", "1_000"),
                *("0001-01-01T00:00:00Z", "2026-11-01T00:00:00%00Z", "2026-11-01T25:00:00Z", "%C2%B2"),
            )
        ),
        "created_before=%C2%B2",
        "limit=1e2",
        "order=DESC",
    ],
)
async def test_a_wrong_value_is_refused_by_its_name(operator: Operator, path: str, query: str) -> None:
    await ask(operator, path, query, query.partition("=")[0])


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query",
    [
        "metadata[a]=a%00b",
        "metadata[a%00]=b",
        f"metadata[a]={LONG}",
        "&".join(f"metadata[{number}]=x" for number in range(9)),
    ],
)
async def test_wrong_metadata_is_refused(operator: Operator, path: str, query: str) -> None:
    assert "metadata: expected up to 8 texts" in await ask(operator, path, query, "metadata")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "name",
    [
        "metadata[]",
        f"metadata[{'a' * 65}]",
        "metadata.order",
        "%00",
        "status[]",
        "filter[status]",
        "x" * 3_000,
        "é",
        "",
    ],
)
async def test_a_name_like_another_is_refused(operator: Operator, path: str, name: str) -> None:
    message = await ask(operator, path, f"{name}=x", name.replace("%00", "\0")[:80])
    assert "is not a parameter of this request" in message
    assert len(message) < 400


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("name", ["status", "limit", "metadata[a]", "q"])
async def test_a_parameter_is_sent_once(operator: Operator, path: str, name: str) -> None:
    value = {"status": "failed", "limit": "1"}.get(name, "x")
    assert "send it once" in await ask(operator, path, f"{name}={value}&{name}={value}", name)


async def test_text_is_no_pattern_and_no_sql(operator: Operator) -> None:
    await operator.gateway.create()
    for text in TEXTS:
        given_text = quote(text)
        names = ("q", "user", "app", "provider", "model", "key", "metadata[a]", f"metadata[{given_text}]")
        for query in (f"{name}={given_text}" for name in names):
            for client, path in ((operator.gateway.client, LISTS[0]), (operator.client, LISTS[1])):
                response = await client.get(f"{path}?{query}&summary=true")
                assert response.status_code == 200, (query, response.text)
                assert response.json()["data"] == []


NAMES = st.sampled_from([*ListQuery.model_fields, "metadata[a]", "project"])
VALUES = st.one_of(st.text(max_size=30), st.sampled_from(["failed", "1", "0", "1764180000", "asc", "true", "sandbox"]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(NAMES, VALUES), max_size=6))
async def test_any_parameters_are_answered_or_refused(operator: Operator, pairs: list[tuple[str, Any]]) -> None:
    for client, path in ((operator.gateway.client, LISTS[0]), (operator.client, LISTS[1])):
        response = await client.get(path, params=pairs)
        assert response.status_code in (200, 400, 404), (pairs, response.text)
