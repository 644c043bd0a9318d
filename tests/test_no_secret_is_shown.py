"""No secret is shown: every configured or sent secret carries a mark, much of what can fail fails, and then the mark is
searched for in every log, response and row."""

import html
import json
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from fakes.otlp import Collector
from fakes.server import serve
from processes import Served, served, until
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app import providers, settings
from app.db.models import Base
from app.main import open_parts
from app.media.bucket import TRIED
from app.providers.answers import secret_pattern
from app.providers.rest import RestProvider
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

MARK = "SEKRET"
ALICE, BOB = f"sk-{MARK}-alice", f"sk-{MARK} bob/+="
ADMIN, METRICS = f"{MARK}-admin", f"{MARK}-metrics"
PASSWORD = f"{MARK}%zz%20%2F%40:database"
"""As it stands in an address: SQLAlchemy takes what is no percent-encoding as it is, PostgreSQL's library does not."""
HOOK = {"webhook_url": "http://127.0.0.1:9/?token=T0KEN", "webhook_secret": f"{MARK}-hook"}

KINDS = {
    "lunos": "google/veo-3.0-generate-preview",
    "lumenfall": "veo-3.1",
    "lumen": "seedance-2",
    "gptge": "luma",
    "apilaplas": "ray-2",
    "ark": "dreamina-seedance-2-0-260128",
    "dashscope": "wan2.7-t2v",
    "fal": "fal-ai/veo3.1",
    "gemini": "veo-3.1-generate-preview",
    "kling": "kling-3.0",
    "minimax": "MiniMax-H3",
    "openrouter": "google/veo-3.1",
    "replicate": "google/veo-3.1",
    "runway": "gen4.5",
    "vertex": "gemini-omni-1.2-flash",
    "xai": "grok-imagine-video",
    "openai": "sora-2",
}
REFUSALS = (400, 401, 403, 404, 429, 500)
MODES = (*map(str, REFUSALS), "page", "broken", "nameless", "moved", "hang", "failed", "odd", "away", "gone", "closed")
"""Failures of an upstream; the first segment of its path selects one."""
SOME = ("400", "nameless", "failed", "odd", "closed")
"""Failures in which kinds differ."""
KEPT = ("webhook_secrets.secret", "webhook_endpoints.secret", "webhook_endpoints.old_secret", "deliveries.secret")
"""Columns that have to hold what signs a webhook; so has `videos.request`, in `webhook`."""


def modes_of(kind: str) -> tuple[str, ...]:
    return MODES if kind in ("openai", "gptge") else SOME


def key_of(kind: str, mode: str) -> str:
    return f'sk-{MARK}-{kind}-{mode}/+=="&<x'


class Echo:
    """An upstream, or a bucket, that fails in the way that its address says, and repeats in every answer the key it
    was sent, as different programs write it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        await (await self._answer(request))(scope, receive, send)

    async def _answer(self, request: Request) -> Any:
        _, mode, *rest = request.url.path.split("/")
        given = request.headers.get("x-goog-api-key") or request.headers.get("authorization", "")
        key = given.removeprefix("Bearer ").removeprefix("Key ")
        plain = json.dumps(key)[1:-1]
        text = (
            f"no: {key} {plain} {plain.replace('/', chr(92) + '/')} {html.escape(key)} {quote(key)} {quote_plus(key)}"
        )
        error = {"message": text, "code": key, "type": key}
        job: dict[str, Any] = {"id": f"job-{mode}", "status": "queued", "state": "queued"}
        if mode == "bucket":
            secret = request.headers.get("x-amz-security-token", "")
            head = '<?xml version="1.0" encoding="UTF-8"?>\n'
            if request.method == "HEAD":  # nothing is there, so that files are fetched at all
                return Response(status_code=404)
            if "list-type" in request.query_params:
                return Response(f"{head}<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")
            text = f"{head}<Error><Code>InvalidToken</Code><Token-0>{secret}</Token-0></Error>"
            return Response(text, 503 if TRIED in request.url.path else 403)  # or the start would end with it
        match mode, request.method:
            case ("failed" | "odd" | "away" | "gone" | "closed", "POST"):
                return JSONResponse(job)
            case "failed", _:
                status = {"status": "failed", "state": "failed"}
                return JSONResponse({**job, **status, "error": error, "failure_reason": text})
            case "odd", _:
                return JSONResponse({**job, "status": text, "state": text})
            case "away", _:
                return JSONResponse({"error": error, "message": text}, 500)
            case "gone", _:
                return JSONResponse({"error": error}, 404)
            case "closed", _ if rest[-1] in ("clip.mp4", "content"):
                return JSONResponse({"error": error}, 404)
            case "closed", _:
                url = f"{request.base_url}closed/clip.mp4"
                places = {"video_url": url, "url": url, "output": {"url": url}, "data": [{"url": url}]}
                return JSONResponse(
                    {**job, "status": "completed", "state": "completed", "video": {"url": url}, **places}
                )
            case "page", _:
                return Response(f"<h1>{html.escape(key)}</h1>", 500, media_type="text/html")
            case "broken", _:
                return Response(f'{{"id": "{key}'.encode(), media_type="application/json")
            case "nameless", _:
                return JSONResponse({"error": error, "message": text, "code": key})
            case "moved", _:
                return Response(status_code=302, headers={"location": f"/?key={quote(key)}"})
            case "hang", _:
                return _silent
        if mode.isdigit():
            return JSONResponse({"error": error, "message": text}, int(mode))
        return JSONResponse({"detail": text}, 404)


async def _silent(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def toml(upstream: str, kinds: Collection[str]) -> str:
    """A provider of each kind in every mood."""
    lines = []
    for kind in kinds:
        for mode in modes_of(kind):
            lines += [f'[providers."{kind}-{mode}"]', f'kind = "{kind}"', f'base_url = "{upstream}/{mode}"']
            lines += [f"api_key = {json.dumps(key_of(kind, mode))}", "timeout_s = 0.5"]
    return "\n".join(lines)


class Reader:
    """A client that keeps every answer."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.answers: list[str] = []

    async def __call__(self, method: str, path: str, *, key: str = ALICE, keep: bool = True, **given: Any) -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        response = await self.http.request(method, path, headers=headers, **given)
        if keep:
            self.answers.append(f"{method} {path} {response.status_code} {response.headers} {response.text}")
        return response


@asynccontextmanager
async def marked(
    tmp_path: Path, database_url: str, upstream: str, log_format: str, kinds: Collection[str]
) -> AsyncIterator[Served]:
    """A gateway of its own process with a mark on everything."""
    (tmp_path / "gateway.toml").write_text(toml(upstream, kinds))
    database = sa.make_url(database_url)
    if not database.password:  # a server that trusts us
        database = database.set(password="here")
    values = {
        "database_url": database.render_as_string(hide_password=False).replace(":here@", f":{PASSWORD}@"),
        "data_dir": tmp_path / "data",
        "api_keys": json.dumps([ALICE, BOB]),
        "admin_key": ADMIN,
        "metrics_key": METRICS,
        "pepper": f"{MARK}-pepper",
        "storage_url": "s3://clips/here",
        "log_level": "debug",
        "log_format": log_format,
        "worker_tick_s": 0.05,
        "poll_interval_s": 0.1,
        "job_deadline_s": 3,
        "allow_networks": "127.0.0.0/8",
    }
    async with served(cwd=tmp_path, **values) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def bucket_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", f"{MARK}-aws-{name}")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


def lines_with(text: str, *secrets: str) -> list[str]:
    """Occurrences of a secret, with the text around them."""
    return [
        text[max(0, found.start() - 150) : found.end() + 50]
        for secret in secrets
        for found in re.finditer(re.escape(secret), text)
    ][:5]


async def everything_fails(read: Reader, database: psycopg.AsyncConnection[Any], kinds: Collection[str]) -> list[str]:
    """Make the calls of a long day; returns the secrets that the gateway itself made."""
    videos = []
    for kind in kinds:
        for mode in modes_of(kind):
            body = {"prompt": "a boat", "model": f"{kind}-{mode}/{KINDS[kind]}", **(HOOK if mode == "400" else {})}
            answer = await read("POST", "/v1/videos", json=body)
            assert answer.status_code == 202, answer.text
            videos.append(answer.json()["id"])

    # Keys that are wrong, and requests that are
    for path in ("/v1/videos", "/metrics", f"/admin/v1/videos/{videos[0]}", "/luma/generations/x"):
        await read("GET", path, key=f"{MARK}-wrong")
        await read("GET", path, key="")
    mistakes: tuple[dict[str, Any], ...] = (
        {"webhook_url": f"http://me:{MARK}@example.com/"},
        {"webhook_url": f"http://example.com:{MARK}/"},
        {"webhook_url": "http://example.com/", "webhook_secret": f"whsec_{MARK}!"},
        {"webhook_secret": f"{MARK}-hook"},
        {"metadata": {"token": {"is": MARK}}},
        {"input_reference": f"file:///{MARK}"},
    )
    for wrong in mistakes:
        assert (await read("POST", "/v1/videos", json={"prompt": "a boat", **wrong})).status_code == 400
    pictures = {"input_reference": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64))}
    upload = await read("POST", "/v1/videos", data={"prompt": "a boat", "model": "openai-400/sora-2"}, files=pictures)
    assert upload.status_code == 503  # the bucket does not take it

    # Endpoints of webhooks
    made = []
    endpoint = {"name": "mine", "url": "http://127.0.0.1:9/", "event_types": ["video.failed"]}
    first = (await read("POST", "/v1/webhook_endpoints", keep=False, json=endpoint)).json()
    path = f"/v1/webhook_endpoints/{first['id']}"
    again = (await read("POST", f"{path}/rotate_secret", keep=False, json={})).json()
    made += [first["signing_secret"], again["signing_secret"]]
    made.append((await read("GET", "/v1/webhooks/secret", keep=False)).json()["key"])
    await read("POST", f"{path}/test", json={"event_type": "video.failed"})

    # Faults of our own
    for harm in (
        "alter table deliveries add constraint harm check (secret is null) not valid",
        "update videos set request = request #- '{webhook,url}' where id = %(id)s",
    ):
        hooked = (await read("POST", "/v1/videos", json={"prompt": "a boat", "model": "sandbox/slow", **HOOK})).json()
        await database.execute(harm.encode(), {"id": hooked["id"]} if "%" in harm else None)
        try:
            assert (await read("DELETE", f"/v1/videos/{hooked['id']}")).status_code == 500
        finally:
            await database.execute(b"alter table deliveries drop constraint if exists harm")
        await database.execute(b"update videos set deleted_at = now() where id = %s", [hooked["id"]])

    await read("POST", "/v1/videos", json={"prompt": "a boat", "model": "sandbox/testcard", "seconds": 1})
    for video in videos:
        kind, _, mode = (await read("GET", f"/v1/videos/{video}")).json()["model"].partition("/")[0].partition("-")
        if mode != "gone" and (kind, mode) != ("openai", "closed"):  # which are tried for longer than we care
            await until(partial(ended, read, video))
        of_video = (f"/v1/videos/{video}/{name}" for name in ("content", "deliveries", "attempts"))
        for shown in (*of_video, f"/luma/generations/{video}"):
            await read("GET", shown)
        await read("GET", f"/admin/v1/videos/{video}", key=ADMIN)
    for shown in (
        "/v1/videos?limit=100",
        path,
        f"{path}/deliveries",
        "/v1/webhook_endpoints",
        "/v1/webhook_deliveries",
        "/v1/models",
        "/openapi.json",
    ):
        assert (await read("GET", shown)).status_code == 200
    assert (await read("GET", "/metrics", key=METRICS)).status_code == 200
    for shown in ("status", "providers", "models", "settings?all=true", "webhook_deliveries"):
        answer = await read("GET", f"/admin/v1/{shown}", key=ADMIN)
        assert (answer.status_code, lines_with(answer.text, "T0KEN")) == (200, [])
    for kind in kinds:
        for mode in modes_of(kind):
            await read("POST", f"/admin/v1/providers/{kind}-{mode}/check", key=ADMIN)
    return made


async def ended(read: Reader, video: str) -> bool | None:
    return (await read("GET", f"/v1/videos/{video}", keep=False)).json()["status"] in ("completed", "failed") or None


async def rows(database: psycopg.AsyncConnection[Any]) -> str:
    """All that is stored but what has to be."""
    found = []
    for table in Base.metadata.sorted_tables:
        cursor = await database.execute(f"select to_jsonb({table.name}) from {table.name}".encode())
        for (row,) in await cursor.fetchall():
            if table.name == "videos":
                row["request"].pop("webhook", None)
            found += [f"{table.name}.{name}: {value}" for name, value in row.items()]
    return "\n".join(line for line in found if not line.startswith(KEPT))


@pytest.mark.slow
@pytest.mark.parametrize(("log_format", "kinds"), [("json", tuple(KINDS)), ("console", ("openai",))])
async def test_no_secret_is_in_logs_responses_or_rows(
    tmp_path: Path,
    database_url: str,
    log_format: str,
    kinds: Collection[str],
    monkeypatch: pytest.MonkeyPatch,
    collector: Collector,
) -> None:
    async with (
        serve(Echo()) as upstream,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"{upstream}/bucket")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={MARK}-traces,{MARK}")
        async with marked(tmp_path, database_url, upstream, log_format, kinds) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False) as http:
                read = Reader(http)
                made = await everything_fails(read, database, kinds)
            stored = await rows(database)
            await gateway.child.stop()
    log = gateway.child.printed
    for said in ("submit refused", "submit outcome unknown", "poll failed", "unknown upstream status", "[key]"):
        assert said in log
    for fault in ("storage failed", "CheckViolation", "ValidationError", "unexpected error"):
        assert fault in log
    assert lines_with(log, MARK, "T0KEN", *made) == []
    assert lines_with("\n".join(read.answers), MARK, *made) == []
    assert lines_with(stored, MARK, *made) == []
    assert {"video.create", "video.submit", "video.generate", "video.job", "webhook.deliver"} <= {
        span.name for span in collector.spans
    }
    assert lines_with("\n".join(span.text for span in collector.spans), MARK, "T0KEN", "a boat", *made) == []


# Settings


@pytest.fixture
def marked_settings(tmp_path: Path, database_url: str) -> settings.Settings:
    return settings.load(
        _env_file=None,
        database_url=database_url,
        data_dir=tmp_path,
        api_keys=[ALICE, BOB],
        admin_key=ADMIN,
        metrics_key=METRICS,
        pepper=f"{MARK}-pepper",
        providers={kind: {"base_url": "http://127.0.0.1:9/v1", "api_key": key_of(kind, "")} for kind in KINDS},
    )


async def test_the_repr_of_a_part_shows_no_secret(marked_settings: settings.Settings) -> None:
    async with open_parts(marked_settings) as parts:
        shown = [repr(marked_settings), str(marked_settings), repr(parts), repr(parts.gateway), repr(parts.worker)]
        for provider in parts.gateway.providers.values():
            shown += [repr(provider), repr(provider.config), str(provider.config)]
            if isinstance(provider, RestProvider):
                shown.append(repr(provider.auth.keys()))
        shown += [repr(vars(part)) for part in (parts.gateway.links, parts.gateway.sender, parts.gateway.db)]
    assert len(parts.gateway.providers) == len(KINDS) + 1
    assert lines_with("\n".join(shown), MARK) == []


WRONG: dict[str, dict[str, Any]] = {
    "number": {"port": MARK},
    "key": {"api_keys": [f"{MARK}\n"]},
    "database scheme": {"database_url": f"mysql://me:{MARK}@host/db"},
    "database port": {"database_url": f"postgresql://me:{MARK}@host:{MARK}/db"},
    "database away": {"database_url": f"postgresql://me:{MARK}@127.0.0.1:1/db"},
    "database percent": {"database_url": f"postgresql://me:{MARK}%zz@127.0.0.1:1/db"},
    "database option": {"database_url": f"postgresql://me:{MARK}@127.0.0.1:1/db?colour=red&password={MARK}"},
    "provider number": {"providers": {"lumen": {"api_key": MARK, "timeout_s": MARK}}},
    "provider field": {"providers": {"lumen": {"api_key": MARK, "secret": MARK}}},
    "provider kind": {"providers": {"mine": {"kind": MARK, "api_key": MARK}}},
    "provider key": {"providers": {"lumen": {"api_key": f"{MARK}é"}}},
    "provider models": {"providers": {"lumen": {"api_key": MARK, "models": f"[{MARK}"}}},
    "user in the address": {"providers": {"openai": {"base_url": f"https://me:{MARK}@host/v1"}}},
    "query in the address": {"providers": {"openai": {"base_url": f"https://host/v1?key={MARK}"}}},
    "routes": {"models": {"clip": {"routes": [{"to": MARK, "weight": MARK}]}}},
}


@pytest.mark.parametrize("name", WRONG, ids=[name.replace(" ", "_") for name in WRONG])
async def test_settings_that_cannot_be_used_are_refused_without_their_values(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await start({"data_dir": tmp_path, **WRONG[name]})
    assert MARK not in str(caught.value)


async def start(values: dict[str, Any]) -> None:
    config = settings.load(_env_file=None, **values)
    providers.build(config)
    async with open_parts(config):
        raise AssertionError("it started")


# Echoes


@pytest.mark.parametrize("key", [key_of("lumen", "x"), 'sk a\\b"c', "sk_live-0123456789", "a.b*c(d)[e]^$", "{'a':'b'}"])
def test_a_key_is_found_however_it_is_written(key: str) -> None:
    inner = json.dumps(key)[1:-1]
    codes = [
        "".join(c if c.isalnum() else pattern.format(ord(c)) for c in key)
        for pattern in ("\\u{:04X}", "\\u{:04x}", "&#{};", "&#x{:X};", "%{:02x}", "%{:02X}")
    ]
    for written in (
        *(key, inner, inner.replace("/", "\\/"), json.dumps(inner)[1:-1], *codes),
        *(html.escape(key), quote(key), quote(key, safe=""), quote_plus(key)),
    ):
        assert secret_pattern(key).sub("[key]", f"<{written}>") == "<[key]>"
    assert secret_pattern(key).sub("[key]", "a harmless text") == "a harmless text"
