"""Media in a request: converts file parts, data URLs and URLs to `Media`; stores files once the request is valid."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from starlette.datastructures import UploadFile

from app import errors, net
from app.http.context import Gateway
from app.media.sniff import HEAD_BYTES, sniff_upload, text_kind
from app.media.uploads import chunks_of
from app.video import Media
from app.webhooks.addresses import public_url

MAX_MEDIA = 20
"""Limit per request, of files and URLs together: the worker fetches or forwards each of them."""
LONGEST_ADDRESS = 8_192

_WHITE_SPACE = "\t\n\f\r "
_DATA_URL = re.compile(r"[\t\n\f\r ]*data:", re.IGNORECASE)
_BASE64 = re.compile(r"; *base64$", re.IGNORECASE)
_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}")
"""Without white space behind it, which would be searched again from each of its characters."""


@dataclass
class Uploads:
    """Collects the files of one request; they are stored once the request is valid."""

    video_id: str
    allow: Sequence[net.Network] = ()
    """Private networks that addresses of clients may lead to."""
    files: list[tuple[Media, BinaryIO]] = field(default_factory=list)
    read: int = 0

    def media(self, value: Any, name: str) -> Media:
        """Read one medium: a file part, an http(s) or data URL, or an object with one as `image_url` or `url`.

        Raises `InvalidRequest`. The bytes themselves are checked later, in the job.
        """
        self.read += 1
        if self.read > MAX_MEDIA:
            raise errors.InvalidRequest(f"{name}: a request has at most {MAX_MEDIA} files and addresses", param=name)
        if isinstance(value, UploadFile):
            return self._add(value.file, value.filename, name)
        if isinstance(value, dict):
            given = [key for key in ("image_url", "video_url", "url", "file_id") if value.get(key) is not None]
            if len(given) != 1:
                raise errors.InvalidRequest(f"{name}: expected exactly one of image_url and file_id", param=name)
            if given == ["file_id"]:
                raise errors.InvalidRequest(
                    f"{name}: this gateway keeps no files of its own; send the file itself or an image_url", param=name
                )
            value = value[given[0]]
            if isinstance(value, dict):  # {"image_url": {"url": ...}}, as in chat messages
                value = value.get("url")
        if isinstance(value, str):
            if _DATA_URL.match(value):
                return self._add(BytesIO(decode_data_url(value, name)), None, name)
            if re.match(r"(?i:https?)://[^/\s]+", value) and len(value) <= LONGEST_ADDRESS:
                public_url(value, name, self.allow)
                return Media(url=value)
            if len(value) > LONGEST_ADDRESS // 8 and _BARE_BASE64.fullmatch(value.rstrip()):
                raise errors.InvalidRequest(
                    f"{name}: this looks like base 64 alone; put data:image/png;base64, or the like in front of it",
                    param=name,
                )
            if value.isdecimal():
                raise errors.InvalidRequest(
                    f"{name}: expected a file, got its bytes as numbers; in Node wrap the buffer with toFile()",
                    param=name,
                )
        raise errors.InvalidRequest(f"{name}: expected a file, an https:// URL or a data: URL", param=name)

    def _add(self, file: BinaryIO, filename: str | None, name: str) -> Media:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if not head:
            raise errors.InvalidRequest(f"{name}: the file is empty", param=name)
        text = text_kind(head)  # first: a text may begin with the mark of a format
        if text is not None:
            raise errors.InvalidRequest(
                f"{name}: expected a picture or a video, and this is {text}; send the file itself, for a picture PNG, "
                "JPEG or WebP",
                param=name,
            )
        key = f"uploads/{self.video_id}/{len(self.files)}"
        found = Media(key=key, content_type=sniff_upload(head), filename=_plain_name(filename))
        self.files.append((found, file))
        return found

    def file_of(self, media: Media) -> BinaryIO | None:
        """The file of an upload, at its beginning; None for an address."""
        file = next((file for found, file in self.files if media.key is not None and found.key == media.key), None)
        if file is not None:
            file.seek(0)
        return file

    def replace(self, media: Media, content: bytes, content_type: str) -> Media:
        """Put other bytes in place of an upload."""
        found = media.model_copy(update={"content_type": content_type})
        self.files = [(found, BytesIO(content)) if old.key == media.key else (old, file) for old, file in self.files]
        return found

    async def store(self, gateway: Gateway) -> None:
        for upload, file in self.files:
            if upload.key is not None:
                limit = gateway.settings.max_body_mb * 2**20
                await gateway.store.put(upload.key, chunks_of(file), max_bytes=limit)

    async def discard(self, gateway: Gateway) -> None:
        if self.files:
            await gateway.store.delete([upload.key for upload, _ in self.files if upload.key is not None])


def decode_data_url(value: str, name: str) -> bytes:
    """Return the bytes of a base64 `data:` URL, read as browsers do (WHATWG Fetch and Infra, 2026-11): any case, white
    space and percent escapes anywhere in the data, padding or none. Raises `InvalidRequest`."""
    head, comma, payload = value.strip(_WHITE_SPACE).partition(",")
    if not comma or not _BASE64.search(head):
        raise errors.InvalidRequest(f"{name}: expected data:<type>;base64,<data>", param=name)
    raw = unquote_to_bytes(payload) if "%" in payload else payload.encode()
    raw = raw.translate(None, _WHITE_SPACE.encode())
    if len(raw) % 4 == 0:
        raw = raw.removesuffix(b"=").removesuffix(b"=")
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        url_safe = b"-" in raw or b"_" in raw
        advice = ": it has - and _ where standard base 64 has + and /" if url_safe else ""
        raise errors.InvalidRequest(f"{name}: the data URL is not valid base 64{advice}", param=name) from None


def _plain_name(filename: str | None) -> str | None:
    """The last path segment of a file name, without characters that are unsafe in a header."""
    name = re.sub(r"[^\w.\- ]", "_", (filename or "").replace("\\", "/").rpartition("/")[2])[-100:]
    return name or None
