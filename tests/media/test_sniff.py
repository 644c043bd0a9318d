"""The content type by the first bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import box

from app.media.sniff import HEAD_BYTES, VIDEO_SUFFIXES, is_text, sniff, suffix_of

FTYP = box(b"ftyp", b"isom" + bytes(4) + b"isommp42")
EBML = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82"


def packets(size: int, prefix: bytes = b"") -> bytes:
    """Three packets of a transport stream."""
    return (prefix + b"G@\0\x10").ljust(size, b"\xff") * 3


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (FTYP, "video/mp4"),
        (box(b"ftyp", b"qt  " + bytes(8)), "video/quicktime"),
        (box(b"ftyp", b"avif" + bytes(8)), None),
        (box(b"ftyp", b"heic" + bytes(8)), None),
        (box(b"ftyp", b"M4A " + bytes(8)), None),
        (box(b"styp", b"msdh" + bytes(8)), "video/mp4"),
        (box(b"wide", b"") + box(b"mdat", b""), "video/quicktime"),
        (box(b"free", bytes(8)) + FTYP, "video/mp4"),
        (box(b"skip", b"") + box(b"uuid", bytes(24)) + FTYP, "video/mp4"),
        (box(b"free", bytes(8)) + box(b"moov", bytes(8)), "video/quicktime"),
        (box(b"free", bytes(8)) + box(b"ftyp", b"avif" + bytes(8)), None),
        (box(b"free", bytes(8)) + box(b"junk", bytes(8)), None),
        ((box(b"free", bytes(1_000)) + FTYP)[:HEAD_BYTES], None),
        (struct.pack(">I4s", 0, b"free") + FTYP, None),
        (struct.pack(">I4s", 2**32 - 1, b"free") + FTYP, None),
        (EBML + b"\x84webm", "video/webm"),
        (EBML + b"\x88matroska", "video/x-matroska"),
        (EBML + b"\x40\x04webm", "video/webm"),
        (EBML + b"\x88unknown!", None),
        (packets(188), "video/mp2t"),
        (packets(192, b"\0\0\x01\x02"), "video/mp2t"),
        (packets(188)[:370], None),
        (packets(190), None),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", None),
        (b"GIF89a\x01\x00", "image/gif"),
        (b"<svg onload='x'>", None),
        (b"#EXTM3U\n", None),
        (b"", None),
    ],
)
def test_the_first_bytes_give_the_content_type(head: bytes, expected: str | None) -> None:
    assert sniff(head) == expected


@given(
    head=st.binary(max_size=600),
    prefix=st.sampled_from([b"", FTYP, EBML, b"RIFF", box(b"free", b""), b"\0\0\0\x08free"]),
)
def test_random_bytes_never_raise(head: bytes, prefix: bytes) -> None:
    assert suffix_of(sniff(prefix + head)) in VIDEO_SUFFIXES.values()


def test_an_unknown_type_has_the_suffix_of_an_mp4() -> None:
    assert [suffix_of(kind) for kind in ("video/quicktime", "video/x-flv", None)] == ["mov", "mp4", "mp4"]


@pytest.mark.parametrize("head", [b"#EXTM3U\n", b"\xef\xbb\xbf<svg/>", b"{}", b"\tfilm\r\n", "Fehler: für".encode()])
def test_text_is_recognised(head: bytes) -> None:
    assert is_text(head)


@pytest.mark.parametrize("head", [b"", b"\0\0\0\x18ftypmp42", b"RIFF\x10\0\0\0AVI LIST", b"G@\0\x10", bytes(512)])
def test_other_bytes_are_not_taken_for_text(head: bytes) -> None:
    assert not is_text(head)
