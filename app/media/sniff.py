"""The type of a file by its first bytes, and the suffix of each type. Pure; every byte is untrusted."""

import codecs
import re
import struct

HEAD_BYTES = 512
"""Bytes that are enough to recognise every type; with fewer, a transport stream or a leading box may stay unknown."""

VIDEO_TYPE = re.compile(r"video/[a-z0-9.+-]{1,60}")
"""A content type that is safe to store and send; an upstream may send anything."""

VIDEO_SUFFIXES = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/mp2t": "ts",
    "image/gif": "gif",
    "image/webp": "webp",
}
"""Suffixes of file names by the content types that a finished video may have."""

_NO_VIDEO_BRANDS = (b"avi", b"hei", b"hev", b"mif", b"msf", b"M4A", b"M4B")
_IMAGES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
_BMP = re.compile(rb"BM.{12}.\0\0\0", re.DOTALL)
"""Two headers, of which the second one begins with its length of 12 to 124 bytes."""
_PICTURES = {
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"\0\0\1\0": "image/x-icon",
}
_PICTURE_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
}
"""Types by the brand of the first box (ISO/IEC 23008-12, AVIF 1.1)."""
_DOCTYPE = re.compile(rb"\x42\x82.{1,8}?(webm|matroska)", re.DOTALL)
_TEXT_KINDS = {
    "<!doctype html": "an HTML page",
    "<html": "an HTML page",
    "<head": "an HTML page",
    "<body": "an HTML page",
    "<": "XML or HTML",
    "{": "JSON",
    "[": "JSON",
    "data:": "the text of a data URL",
    "http://": "the text of an address",
    "https://": "the text of an address",
}
"""Kinds of text by how they begin; the first one that fits."""
_MARKUP = re.compile(
    rb"""(?:\xef\xbb\xbf)?[\t\n\f\r ]*(?=<!doctype|<\?xml|<html|<head|<body|<svg|\{\s*")""", re.IGNORECASE
)
"""Beginnings of texts that are recognised in every charset that contains ASCII."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_TS_PACKETS = ((188, 0), (192, 4))
"""Bytes of a packet and place of its sync byte; the longer packets begin with a time stamp (M2TS)."""


def sniff(head: bytes) -> str | None:
    """Return the content type that the first bytes (`HEAD_BYTES`) show; None for a type we do not handle."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        doctype = _DOCTYPE.search(head, 4, 64)
        return doctype and {b"webm": "video/webm", b"matroska": "video/x-matroska"}[doctype[1]]
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    for magic, name in _IMAGES.items():
        if head.startswith(magic):
            return f"image/{name}"
    for packet, sync in _TS_PACKETS:
        if head[sync : sync + 2 * packet + 1 : packet] == b"GGG":
            return "video/mp2t"
    return _iso_type(head)


def sniff_upload(head: bytes) -> str | None:
    """Return the content type of an upload by its first bytes: also of pictures that no finished video is made of."""
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS:
        return _PICTURE_BRANDS[head[8:12]]
    found = "image/bmp" if _BMP.match(head) else sniff(head)
    return found or next((name for magic, name in _PICTURES.items() if head.startswith(magic)), None)


def suffix_of(content_type: str | None) -> str:
    """Return the suffix of a video file of this type, `mp4` for an unknown type."""
    return VIDEO_SUFFIXES.get(content_type or "", "mp4")


def is_text(head: bytes) -> bool:
    """Return True if the first bytes are text, such as an error page or a playlist. No video file begins with text."""
    return bool(head) and all(byte >= 32 or byte in b"\t\n\f\r" for byte in head)


def text_kind(head: bytes) -> str | None:
    """Return the kind of text that an upload is by its first bytes, such as `an HTML page`; None if it is not text, or
    not certainly so. The last character may be cut off."""
    text = _decoded(head)
    start = text and text.removeprefix("\ufeff").lstrip().lower()
    if not start or _CONTROL.search(start) or not all(map(_is_shown, start)):
        markup = _MARKUP.match(head)
        if markup is None:
            return None
        start = head[markup.end() :].decode("latin-1").lower()
    if start.startswith("<") and "<svg" in start.partition("<html")[0]:
        return "an SVG drawing"
    return next((kind for mark, kind in _TEXT_KINDS.items() if start.startswith(mark)), "text")


def _decoded(head: bytes) -> str | None:
    """The text that the bytes are in UTF-8 or UTF-16; None if they are in neither."""
    encoding = "utf-8"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif 0 in head and not any(head[1::2]):  # without a mark: every second byte of Latin letters is 0
        encoding = "utf-16-le"
    elif 0 in head and not any(head[::2]):
        encoding = "utf-16-be"
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeError:
        return None


def _is_shown(character: str) -> bool:
    return character.isprintable() or character.isspace()


def _iso_type(head: bytes) -> str | None:
    """The type by the first box (ISO/IEC 14496-12) that is not padding."""
    offset = 0
    while offset + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, offset)
        if kind in (b"ftyp", b"styp"):
            brand = head[offset + 8 : offset + 12]
            if brand == b"qt  ":
                return "video/quicktime"
            return None if brand[:3] in _NO_VIDEO_BRANDS else "video/mp4"
        if kind in (b"moov", b"mdat", b"wide", b"pnot"):
            return "video/quicktime"
        if kind not in (b"free", b"skip", b"uuid") or length < 8:
            return None
        offset += length
    return None
