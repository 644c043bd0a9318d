"""Places at which an upstream without a content call names or embeds the finished file."""

import json
import tracemalloc
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, BrokenOff, Elsewhere, Long, sample_mp4, serve
from harness import Running

pytestmark = pytest.mark.anyio

URL = "URL"
"""Stands for the address of the file in the tables below."""
FILE = sample_mp4()
PLAIN = b64encode(FILE).decode()
DATA_URL = f"data:video/mp4;base64,{PLAIN}"


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(content_call=False, polls_until_working=0, polls_until_done=0)


@pytest.fixture
async def elsewhere() -> AsyncIterator[tuple[Elsewhere, str]]:
    host = Elsewhere()
    async with serve(host) as url:
        yield host, url


def at(url: str, value: Any) -> Any:
    """The value with its addresses on the host of the test."""
    return json.loads(json.dumps(value).replace(URL, f"{url}/clip.mp4"))


async def finished(gateway: Running, **fields: Any) -> dict[str, Any]:
    video = await gateway.create(model="up/sora-2", **fields)
    return await gateway.finish(video["id"], step_s=70)


async def made(gateway: Running, **fields: Any) -> bytes:
    """The file of a completed video."""
    video = await finished(gateway, **fields)
    assert video["status"] == "completed", video["error"]
    return (await gateway.client.get(f"/v1/videos/{video['id']}/content")).content


ADDRESSES: list[dict[str, Any]] = [
    {"output": {"url": URL}},
    {"output": [{"type": "video", "url": URL}]},
    {"output": [URL]},
    {"output": URL},
    {"output": {"video_url": URL}},
    {"url": URL},
    {"url": f" {URL}\n"},
    {"urls": [URL]},
    {"video_url": URL},
    {"data": [{"url": URL}]},
    {"data": {"video_url": URL}},
    {"data": {"result_url": URL}},
    {"outputs": [URL]},
    {"outputs": [{"id": "v1", "url": URL, "watermark_url": ""}]},
    {"outputs": {"video_url": URL, "cost": 1}},
    {"content": {"video_url": URL}},
    {"content": {"url": URL}},
    {"result_url": URL},
    {"result": {"video_url": URL}},
    {"result": {"videos": [{"url": [URL]}]}},
    {"video": {"url": URL}},
    {"video": URL},
    {"videos": [{"url": URL}]},
    {"assets": {"video": URL, "image": "https://cdn.example/a.jpg"}},
    {"task_result": {"videos": [{"url": URL}]}},
    {"download_url": URL},
    {"output_url": URL},
    {"metadata": {"url": URL}},
    {"metadata": {"video_url": URL}},
    # Several candidates, of which one is the file.
    {"output": ["https://cdn.invalid/cover.jpg", URL, "https://cdn.invalid/second.mp4"]},
    {"outputs": [{"type": "image", "url": "https://cdn.invalid/frame"}, {"type": "video", "url": URL}]},
    {"url": None, "output": {}, "data": [None, {"url": ""}, {"url": 7}], "video_url": URL},
    {"thumbnail_url": "https://cdn.invalid/a", "callback_url": "https://cdn.invalid/b", "metadata": {"url": URL}},
    {"metadata": {"url": "https://cdn.invalid/page"}, "video": {"url": URL}},
    {"url": "https://x.example/mine.png", "video_url": "https://x.example/note", "metadata": {"url": URL}},
]


@pytest.mark.parametrize("named", ADDRESSES, ids=lambda named: json.dumps(named)[:60])
async def test_a_file_is_fetched_from_every_known_place(
    gateway: Running, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str], named: dict[str, Any]
) -> None:
    host, url = elsewhere
    fake.named = at(url, named)
    echoed = {"input_reference": {"image_url": "https://x.example/mine.png"}, "note": "https://x.example/note"}
    assert await made(gateway, **echoed) == host.file
    assert ["authorization" in call.headers for call in host.calls] == [False]


def lines(text: str, ending: str) -> str:
    return ending.join(text[start : start + 76] for start in range(0, len(text), 76)) + ending


EMBEDDED: dict[str, dict[str, Any]] = {
    "b64_json": {"data": [{"b64_json": PLAIN}]},
    "data URL in b64_json": {"data": [{"b64_json": DATA_URL}]},
    "url": {"url": DATA_URL},
    "video_url": {"video_url": f" {DATA_URL}\n"},
    "output": {"output": [DATA_URL]},
    "no padding": {"url": DATA_URL.rstrip("=")},
    "url-safe": {"url": f"DATA:video/mp4;codecs=avc1;BASE64,{urlsafe_b64encode(FILE).decode()}"},
    "lines": {"url": f"data:video/mp4;base64,{lines(PLAIN, chr(13) + chr(10))}"},
    "second of two": {"data": [{"b64_json": None}, {"b64_json": lines(PLAIN, chr(10))}]},
    "no type": {"url": f"data:;base64,{PLAIN}"},
    "beside a preview": {"data": [{"type": "image", "b64_json": "iVBORw0KGgo="}, {"type": "video", "b64_json": PLAIN}]},
}


@pytest.mark.parametrize("named", EMBEDDED.values(), ids=EMBEDDED)
async def test_a_file_within_the_answer_is_decoded(gateway: Running, fake: FakeOpenAI, named: dict[str, Any]) -> None:
    fake.named = named
    assert await made(gateway) == FILE


@pytest.mark.parametrize("escaped", [PLAIN.replace("/", "\\/"), "".join(f"\\u{ord(c):04x}" for c in PLAIN)])
async def test_escapes_within_an_embedded_file_are_resolved(gateway: Running, fake: FakeOpenAI, escaped: str) -> None:
    document = f'{{"id": "video_1", "status": "completed", "url": "data:video/mp4;base64,{escaped}"}}'
    fake.script("poll", *[Answer(200, document.encode(), {"content-type": "application/json"})] * 2)
    assert await made(gateway) == FILE


async def test_a_large_embedded_file_is_never_in_memory(gateway: Running, fake: FakeOpenAI) -> None:
    """40 MB of video: the answers to submit, poll and download have it, and nothing holds it as a whole."""
    size = 40 * 2**20
    head = b64encode(FILE + bytes(-len(FILE) % 3))
    before = b'{"id": "video_1", "object": "video", "status": "completed", "url": "data:video/mp4;base64,' + head
    answer = Long(before, b"AAAA" * 2**16, size // (3 * 2**16), b'", "seconds": "4"}')
    fake.script("submit", Long(before, answer.piece, answer.times, answer.after, accepted=True))
    fake.script("poll", answer, answer)
    video = await gateway.create(model="up/sora-2")
    tracemalloc.start()
    try:
        ended = await gateway.finish(video["id"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended["status"] == "completed"
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content", headers={"range": "bytes=0-99"})
    assert content.headers["content-range"].endswith(f"/{len(head) // 4 * 3 + answer.times * 3 * 2**16}")
    assert peak < size * 0.75
    assert len(fake.submits) == 1


BROKEN = [
    {"data": [{"b64_json": PLAIN[:401]}]},
    {"data": [{"b64_json": PLAIN[:400] + "*" + PLAIN[400:]}]},
    {"data": [{"b64_json": PLAIN[:400] + "=" + PLAIN[400:]}]},
    {"url": f"data:video/mp4,{PLAIN}"},
]


@pytest.mark.parametrize("named", BROKEN)
async def test_an_embedded_file_that_is_broken_is_read_again(
    gateway: Running, fake: FakeOpenAI, named: dict[str, Any]
) -> None:
    fake.named = named
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert (await gateway.get(video["id"]))["status"] == "in_progress"
    fake.named = {"data": [{"b64_json": PLAIN}], "url": DATA_URL}
    assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_an_embedded_file_that_breaks_off_is_read_again(gateway: Running, fake: FakeOpenAI) -> None:
    fake.named = {"url": DATA_URL}
    half = json.dumps({"id": "video_1", "status": "completed", "url": DATA_URL}).encode()[:2_000]
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.finish("video_1")
    fake.polls_until_done = 0
    gateway.clock.advance(20)
    whole = Answer(200, {"id": "video_1", "status": "completed", "url": DATA_URL})
    fake.script(
        "poll", whole, BrokenOff(half, promised=10_000), Answer(200, half, {"content-type": "application/json"})
    )
    assert (await gateway.finish(video["id"], step_s=70))["status"] == "completed"


@pytest.mark.parametrize("second", [{"id": "video_1", "status": "completed"}, {"url": "http"}, [], "text", {"url": {}}])
async def test_an_answer_that_has_lost_its_file_is_polled_again(
    gateway: Running, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str], second: Any
) -> None:
    fake.named = {"url": f"{elsewhere[1]}/clip.mp4"}
    whole = Answer(200, {"id": "video_1", "status": "completed", "url": DATA_URL})
    fake.script("poll", whole, Answer(200, at(elsewhere[1], second) if second != {"url": "http"} else fake.named))
    assert await made(gateway) == elsewhere[0].file


NO_PLACE: list[dict[str, Any]] = [
    {},
    {"output": None, "data": [], "video": {}},
    {"thumbnail_url": "https://cdn.example/a.jpg", "callback_url": "https://cdn.example/hook"},
    {"url": "https://x.example/mine.png?sig=1", "output": {"url": "https://x.example/clip"}},
    {"metadata": {"url": "https://x.example/page"}},
    {"url": "javascript:alert(1)", "output": "file:///etc/passwd", "video_url": "clip.mp4"},
    {"url": "data:image/png;base64,iVBORw0KGgo=", "b64_json": "no base64!"},
    {"output": [[[["https://cdn.example/a.mp4"]]]], "outputs": {"0": "https://cdn.example/a.mp4"}},
    {"video_url": ["https://cdn.example/a.png", "https://cdn.example/a.json"]},
]


@pytest.mark.parametrize("named", NO_PLACE, ids=lambda named: json.dumps(named)[:60])
async def test_a_finished_task_that_names_no_file_says_so(
    gateway: Running, fake: FakeOpenAI, named: dict[str, Any]
) -> None:
    fake.named = named
    video = await finished(
        gateway,
        input_reference={"image_url": "https://x.example/mine.png"},
        reference_video="https://x.example/clip",
        metadata={"url": "https://x.example/page"},
    )
    assert video["error"] == {
        "code": "no_output",
        "message": "up reports the video as completed: completed, but names no file",
    }
    (attempt,) = await gateway.attempts(video["id"])
    assert '"status": "completed"' in (attempt.error_body or "")
    assert (attempt.polls, len(fake.contents)) == (3, 3), "it may come late"


async def test_a_file_that_comes_late_is_found(
    gateway: Running, fake: FakeOpenAI, elsewhere: tuple[Elsewhere, str]
) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    fake.named = at(elsewhere[1], {"url": URL})
    assert (await gateway.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"code": 1004, "message": "insufficient balance"}, "1004 insufficient balance"),
        (
            {"error": {"message": "no credit left, see https://a:b@x.example/?k=s"}},
            "no credit left, see https://x.example/",
        ),
        ({"error": "model is gone"}, "model is gone"),
    ],
)
async def test_a_refusal_within_a_200_is_unknown_and_quoted(
    gateway: Running, fake: FakeOpenAI, answer: dict[str, Any], message: str
) -> None:
    fake.script("submit", Answer(200, answer))
    video = await finished(gateway)
    assert video["error"] == {
        "code": "upstream_outcome_unknown",
        "message": f"up: the answer carries no usable id: {message}",
    }


HOSTILE = {
    "a string of 200 MB": Long(b'{"status": "queued", "id": "video_1", "pad": "', b"x" * 2**20, 200, b'"}'),
    "backslashes": Long(b'{"status": "queued", "id": "video_1", "pad": "', b"\\" * 2**20, 20, b'"}'),
    "a long key": Long(b'{"status": "queued", "id": "video_1", "', b"x" * 2**20, 20, b'": 1}'),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_submit_survives_a_long_answer(gateway: Running, fake: FakeOpenAI, name: str) -> None:
    fake.script("submit", HOSTILE[name])
    fake.named = {"url": DATA_URL}
    fake.job("video_1", {"prompt": "a paper boat"})
    assert await made(gateway) == FILE


UNREADABLE = {
    "unterminated": Long(b'{"id": "video_1", "pad": "', b"x" * 2**20, 20, b""),
    "a long id": Long(b'{"status": "queued", "id": "', b"x" * 2**20, 2, b'"}'),
    "deep": Long(b'{"id": "video_1", "pad": ', b"[" * 2**20, 2, b""),
    "many strings": Long(b'{"id": "video_1", "pad": [', b'"a",' * 2**18, 10, b'""]}'),
    "no JSON": Long(b"<pre>", b'"x"' * 2**20, 4, b"</pre>"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_unreadable_answer_to_a_submit_is_an_unknown_outcome(
    gateway: Running, fake: FakeOpenAI, name: str
) -> None:
    fake.script("submit", UNREADABLE[name])
    assert (await finished(gateway))["error"]["code"] == "upstream_outcome_unknown"
    fake.script("poll", UNREADABLE[name])
    fake.named = {"url": DATA_URL}
    assert await made(gateway) == FILE


async def test_a_hostile_answer_at_the_second_reading_is_no_file(gateway: Running, fake: FakeOpenAI) -> None:
    whole = Answer(200, {"id": "video_1", "status": "completed", "url": DATA_URL})
    many = Long(b'{"a": [', b"[],[]," * 2**17, 4, b'1], "url": "')
    deep = Long(b'{"a": ', b"[" * 2**20, 1, b'"')
    fake.named = {"video_url": DATA_URL}
    fake.script("poll", whole, many, whole, deep)
    assert await made(gateway) == FILE
