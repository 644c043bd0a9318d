"""Replays of the recordings in `tests/recordings`: each request that a vendor's SDK sent is asked of our adapter, which
gets the recorded response. `recordings.toml` says what a case is in the gateway's vocabulary."""

import base64
import json
import re
import tomllib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
from contract.stage import NOW
from fakes.server import KEY, Call, File, read_call, serve
from fakes.upstream import Upstream
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import errors
from app.media.uploads import Upload
from app.providers.base import Outbound, Provider, Task
from app.providers.rest import RestProvider
from app.video import Media, Output, Progress, Status, Submission, VideoRequest

FOLDER = Path(__file__).parents[1] / "recordings"
TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("recordings.toml").read_text("utf-8"))
KINDS = tuple(TABLE["kinds"])
JSON = {"content-type": "application/json"}
VERBS = {"result": "poll", "upload": "submit", "file": "content"}
"""The call of an adapter that makes a request which is no call of its own."""
HERE = "$HERE"
"""Value of a setting that is the address of the replay."""
HTTP_ONLY = ("authorization", "content-type")
"""Headers of a recorded request that an adapter has to send, too; each kind may name more."""


@dataclass(frozen=True)
class Case:
    """One recorded case, and its row of the table: empty if it has none."""

    kind: str
    name: str
    recorded: Mapping[str, Any]
    row: Mapping[str, Any]

    @property
    def left_out(self) -> str | None:
        """The reason why the case is not an adapter's business."""
        if not self.recorded["requests"]:
            return "no request"
        reason: str | None = self.row.get("not")
        return reason


@dataclass
class Replay:
    """The result of a case: differences to the recorded requests as `(field, how)`, and what the adapter read."""

    differences: list[tuple[str, str]] = field(default_factory=list)
    read: list[str] = field(default_factory=list)


@cache
def cases(kind: str) -> tuple[Case, ...]:
    row = TABLE["kinds"][kind]
    document = json.loads((FOLDER / row["file"]).read_text("utf-8"))
    return tuple(Case(kind, case["name"], case, _row_of(row["cases"], case["name"])) for case in document["cases"])


def _row_of(rows: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The row of this name, else the first one whose pattern it matches."""
    found: Mapping[str, Any] = rows.get(name) or next(
        (row for pattern, row in rows.items() if fnmatchcase(name, pattern)), {}
    )
    return dict(found)


def unused_rows(kind: str) -> list[str]:
    """Rows of the table that no recorded case has."""
    names = [case.name for case in cases(kind)]
    return [row for row in TABLE["kinds"][kind]["cases"] if not any(n == row or fnmatchcase(n, row) for n in names)]


# Replaying


class Recorder:
    """A server that answers each request with the next recorded response, then with 503."""

    def __init__(self, left: Iterable[tuple[Any, Mapping[str, Any]]], here: str | None = None) -> None:
        self.left = deque(left)
        """Recorded requests and their responses; a response that is not part of the recording has no request."""
        self.calls: list[tuple[Call, Mapping[str, Any] | None]] = []
        self.ran_out = False
        self.here = here
        """An address in recorded responses that means this server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = await read_call(Request(scope, receive))
        if not self.left:
            self.ran_out = True
            await Response(status_code=503)(scope, receive, send)
            return
        request, response = self.left.popleft()
        self.calls.append((call, request))
        body = response.get("body")
        content = _content(body)
        content = content.replace(self.here.encode(), call.origin.encode()) if self.here else content
        headers = {name: value for name, value in response["headers"].items() if name != "content-length"}
        await Response(content, response["status"], headers)(scope, receive, send)


def _content(body: Any) -> bytes:
    """The bytes of a recorded body; of a file only the length was recorded."""
    if isinstance(body, dict) and "$bytes" in body:
        return bytes(body["$bytes"])
    if body is not None and not isinstance(body, str):
        return json.dumps(body).encode()
    length = re.fullmatch(r"<(\d+) bytes>", body or "")
    return bytes(int(length[1])) if length else (body or "").encode()


async def replay(case: Case) -> Replay:
    """Ask the adapter for each request of the case; the recorded responses are the answers. A call of the adapter may
    make several requests; one that makes more than were recorded reads `asks for more`."""
    table, result = TABLE["kinds"][case.kind], Replay()
    recorder = Recorder(zip(case.recorded["requests"], case.recorded["responses"], strict=False), case.row.get("here"))
    inserted = case.row.get("inserted", table.get("inserted"))
    if inserted:
        recorder.left.appendleft((None, {"status": 200, "headers": JSON, "body": inserted}))
    if "added" in case.row:
        recorder.left.append((None, {"status": 200, "headers": JSON, "body": case.row["added"]}))
    upstream: Upstream = import_module(f"fakes.{table['fake']}").UPSTREAMS[0]
    assert issubclass(upstream.kind, RestProvider)
    fake = upstream.fake()
    async with serve(recorder) as origin:
        config = {"api_key": KEY, "timeout_s": 10} | dict.fromkeys(upstream.kind.key_origins, origin + table["prefix"])
        config |= table.get("config", {}) | case.row.get("config", {})
        config = {name: origin if value == HERE else value for name, value in config.items()}
        default = upstream.kind.Config.model_fields["base_url"].default
        home = (
            str(httpx.URL(default).copy_with(path="/")).rstrip("/") if isinstance(default, str) and default else origin
        )
        provider = upstream.kind("up", upstream.kind.Config(**config), Outbound((ip_network("127.0.0.0/8"),)))
        try:
            for reads in case.row["reads"]:
                if reads == "-":
                    recorder.left.popleft()
                    result.read.append(reads)
                    continue
                request = next(request for request, _ in recorder.left if request is not None)
                verb, subject = fake.route(request["method"], request["path"])
                recorder.calls.clear()
                read = await _ask(provider, case.row.get("verb") or VERBS.get(verb, verb), subject, case)
                result.read.append("asks for more" if recorder.ran_out else read.replace(origin, home))
                for call, recorded in recorder.calls:
                    found = _differences(recorded, call, table.get("headers", ())) if recorded else []
                    result.differences += [(name, how) for name, how in found if not _is_same(how, origin, home)]
        finally:
            await provider.aclose()
    if recorder.left:
        result.differences.append(("calls", f"{len(recorder.left)} recorded requests were not made"))
    return result


async def _ask(provider: Provider, verb: str, subject: str, case: Case) -> str:
    """Make the call and return what was read from the answer, as the table writes it."""
    task = _task(case, ref=subject or None)
    try:
        if verb == "submit":
            return _submission(await provider.send(task))
        if verb == "poll":
            return _progress(await provider.poll(task))
        if verb == "cancel":
            return "stopped" if await provider.cancel(task) else "not stopped"
        if verb == "content":
            async with provider.fetch(task, Output(**case.row.get("output", {}))) as download:
                return f"{len(b''.join([chunk async for chunk in download.chunks]))} bytes"
        if verb == "character":
            return await provider.create_character(case.row["name"], Media(**case.row["video"]), _read)
    except errors.UpstreamError as error:
        code = "" if error.code == error.default_code else f" {error.code}"
        return type(error).__name__ + code
    raise AssertionError(f"{case.name}: {verb} is not a call of adapters; the table has to leave it out")


def _task(case: Case, ref: str | None) -> Task:
    fields = {"prompt": "x", "model": "m", **case.row.get("ask", {})}
    values = {"model": fields["model"], "now": NOW, "read": _read, "ref": ref, "submitted_at": NOW}
    return Task(**{"id": "attempt_1", **values, **case.row.get("task", {}), "request": VideoRequest(**fields)})


@asynccontextmanager
async def _read(media: Media) -> AsyncIterator[Upload]:
    """Open an upload whose key has its name, type and size, or its bytes as base64: `a.png image/png 70`."""
    filename, content_type, content = str(media.key).split()
    data = bytes(int(content)) if content.isdecimal() else base64.b64decode(content)

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    yield Upload(filename, content_type, len(data), chunks())


def _submission(found: Submission) -> str:
    return f"{found.status} {found.ref}"


def _progress(found: Progress) -> str:
    if found.status is Status.failed:
        assert found.failure is not None
        return f"failed {found.failure.code}"
    if found.status is Status.completed:
        assert found.output is not None
        return f"completed {found.output.url or found.output.inline or 'content call'}"
    said = [str(found.status), *([] if found.progress is None else [str(found.progress)])]
    return " ".join(said + ([] if found.poll_after_s is None else [f"after {found.poll_after_s:g}"]))


# Comparing


def _is_same(how: str, origin: str, home: str) -> bool:
    """True if two values are equal once the vendor's address stands for that of the recorder."""
    ours, _, theirs = how.partition(" instead of ")
    return ours.replace(origin, home) == theirs


def _differences(theirs: Mapping[str, Any], ours: Call, headers: tuple[str, ...]) -> list[tuple[str, str]]:
    found = [
        (name, f"{left} instead of {right}")
        for name, left, right in (
            ("method", ours.method, theirs["method"]),
            ("path", ours.path, theirs["path"]),
            ("query", dict(parse_qsl(ours.query)), theirs.get("query") or {}),
        )
        if left != right
    ]
    found += [
        (f"header {name}", "missing")
        for name in (*HTTP_ONLY, *headers)
        if name in theirs["headers"] and name not in ours.headers and (theirs.get("body") or name != "content-type")
    ]
    return found + list(_body_differences(dict(_leaves_of_call(ours)), dict(_leaves_of_recording(theirs.get("body")))))


def _body_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        if name not in ours:
            yield name, "missing"
        elif name not in theirs:
            yield name, "added"
        elif ours[name] != theirs[name]:
            yield name, f"{ours[name]!r:.200} instead of {theirs[name]!r:.200}"


def _leaves_of_call(call: Call) -> Iterator[tuple[str, Any]]:
    """Every value of a body by its name; those of forms are text, so all are compared as text."""
    if isinstance(call.json, bytes):
        yield "$base64", base64.b64encode(call.json).decode()
    elif call.form is None:
        yield from _leaves(call.json)
    for name, value in call.form or ():
        yield name, _file(value.filename, value.content_type, value.size) if isinstance(value, File) else value


def _leaves_of_recording(body: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(body, dict) or "multipart" not in body:
        yield from _leaves(body)
        return
    for part in body["multipart"]:
        is_file = "filename" in part
        yield part["name"], _file(part["filename"], part["content_type"], part["bytes"]) if is_file else part["value"]


def _file(filename: str, content_type: str, size: int) -> str:
    return f"file {filename} {content_type} {size}"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}[{key}]" if name else str(key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{number}]")
    elif value is not None and name:  # an explicit null is an absent field
        yield name, value if isinstance(value, str) else json.dumps(value)


def explained(kind: str, difference: tuple[str, str]) -> int | None:
    """The number of the entry of `differences` that explains this one; None if none does."""
    name, how = difference
    for number, entry in enumerate(TABLE["differences"]):
        if kind in entry["kinds"] and fnmatchcase(name, entry["field"]) and fnmatchcase(how, entry["how"]):
            return number
    return None
