"""Texts that pose as pictures or videos: refused by every dialect before anything is stored or paid."""

import json
from base64 import b64encode
from typing import Any

import pytest
from contract.dialect_cases import CASES
from harness import Running

from app.media.sniff import HEAD_BYTES, text_kind

pytestmark = pytest.mark.anyio

WITH_PICTURE = {prefix: case.inputs for prefix, case in CASES.items() if case.inputs and case.inputs.picture}
PAGE = b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head><body>...</body></html>"
SVG = b'<?xml version="1.0"?>\n<!-- a boat -->\n<svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>'
TEXTS = {
    "a page": (PAGE, "an HTML page"),
    "a page after a mark and lines": (b"\xef\xbb\xbf\r\n\t" + PAGE, "an HTML page"),
    "a page in UTF-16": (PAGE.decode().encode("utf-16"), "an HTML page"),
    "a page in UTF-16 without a mark": (PAGE.decode().encode("utf-16-be"), "an HTML page"),
    "a drawing": (SVG, "an SVG drawing"),
    "another XML": (b"<Error><Code>AccessDenied</Code></Error>", "XML or HTML"),
    "JSON": (json.dumps({"error": "not found"}, indent=2).encode(), "JSON"),
    "an address": (b"https://example.com/boat.png\n", "the text of an address"),
    "a data URL": (b"data:image/png;base64,iVBORw0KGgo=", "the text of a data URL"),
    "a page in Latin-1": ("<HTML><body>Zugriff für Gäste</body></HTML>".encode("latin-1"), "an HTML page"),
    "a page in Shift JIS": ("\r\n <!DOCTYPE html><p>東京のページ</p>".encode("shift_jis"), "an HTML page"),
    "a page in ISO-2022-JP": ("<head><title>東京</title>".encode("iso2022_jp"), "an HTML page"),
    "a page in Windows-1252": (b"\xef\xbb\xbf<body>\x93not found\x94 \x80", "an HTML page"),
    "a drawing in Latin-1": ('<?xml version="1.0"?><svg><!-- für --></svg>'.encode("latin-1"), "an SVG drawing"),
    "XML in Latin-1": ("<?xml version='1.0'?><Error>für</Error>".encode("latin-1"), "XML or HTML"),
    "JSON in Latin-1": (b'{\n "error": "kein Zugriff f\xfcr Sie"}', "JSON"),
    "a text that begins like a bitmap": (b"BMW does not lend this picture", "text"),
    "a text that begins like a QuickTime file": (b"The wide river is not here", "text"),
    "a long text with a character cut off": (b"x" * (HEAD_BYTES - 1) + "für".encode()[1:] * 9, "text"),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("prefix", WITH_PICTURE)
async def test_a_text_is_not_taken_as_a_picture(gateway: Running, prefix: str, text: str) -> None:
    case, inputs = CASES[prefix], WITH_PICTURE[prefix]
    assert inputs.picture is not None
    content, kind = TEXTS[text]
    answers = [
        await gateway.client.post(
            case.create,
            data={**case.body, **{name: value for name, value in inputs.keyed.items() if "type" in name}},
            files={inputs.picture_part: ("boat.png", content, "image/png")},
        ),
        await gateway.client.post(
            case.create,
            json={**case.body, **inputs.picture(f"data:image/png;base64,{b64encode(content).decode()}")},
        ),
    ]
    for answer in answers:
        assert answer.status_code == 400, answer.text
        said = f"{inputs.picture_param}: expected a picture or a video, and this is {kind}; send the file itself"
        assert said in case.message_of(answer.json())
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
    uploads = gateway.gateway.settings.data_dir / "media" / "uploads"
    assert not uploads.exists() or [path for path in uploads.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("path", ["/v1/videos/edits", "/v1/videos/characters"])
async def test_a_text_is_not_taken_as_a_video(gateway: Running, path: str) -> None:
    files = {"video": ("boat.mp4", PAGE, "video/mp4")}
    answer = await gateway.client.post(path, data={"prompt": "in snow", "name": "boat"}, files=files)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (error["param"], "an HTML page" in error["message"]) == ("video", True)


BINARY = {
    "an unknown format": b"\x93NUMPY\x01\0" + bytes(range(256)),
    "text with control characters": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0\x01",
    "Latin-1": "für".encode("latin-1") * 40,
    "numbers of 16 bits": bytes(range(256)) * 2,
    "a mark of UTF-16 and noise": b"\xff\xfe\x00\xd8\x01\x02" * 80,
    "a portable pixmap": b"P6\n2 1\n255\n\x00\x01\x02\xff\xfe\xfd",
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("prefix", WITH_PICTURE)
async def test_unknown_bytes_go_up_as_they_are(gateway: Running, prefix: str, name: str) -> None:
    case, inputs = CASES[prefix], WITH_PICTURE[prefix]
    assert inputs.picture is not None
    url = f"data:image/png;base64,{b64encode(BINARY[name]).decode()}"
    answer = await gateway.client.post(case.create, json={**case.body, **inputs.picture(url)})
    assert answer.status_code == case.created, answer.text


def test_a_character_may_be_cut_at_every_byte() -> None:
    text = "Straße 東京 🚢 ".encode()
    assert [text_kind(text[:length]) for length in range(8, len(text) + 1)] == ["text"] * (len(text) - 7)
    assert text_kind(b"") is None
    assert text_kind(b"abc\xff") is None
