"""Signed URLs of this gateway: expiring links to files, and callback URLs for upstreams."""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime

from app.media.pictures import VARIANTS, Variant
from app.media.sniff import suffix_of
from app.settings import Settings
from app.video import Media

UPLOAD_LINK_S = 86_400
"""Lifetime of a link for an upstream to fetch an upload: as long as the longest queue."""


class Signer:
    """Signs and verifies links that open one path until they expire."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, path: str, expires: int) -> str:
        """Return the query string that opens `path` until `expires`, a Unix time."""
        return f"exp={expires}&sig={self._signature(path, str(expires))}"

    def verify(self, path: str, exp: str, sig: str, now: float) -> bool:
        """Return True if the two parameters open `path` at `now`."""
        if not re.fullmatch(r"[1-9][0-9]{0,11}", exp):
            return False
        genuine = hmac.compare_digest(self._signature(path, exp).encode(), sig.encode("utf-8", "replace"))
        return genuine and now < int(exp)

    def _signature(self, path: str, exp: str) -> str:
        digest = hmac.digest(self._secret, f"media\n{exp}\n{path}".encode("utf-8", "replace"), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


class SignedLinks:
    """Makes and verifies signed URLs; `origin` is the address of this gateway as clients see it."""

    def __init__(self, secret: bytes, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._signer = Signer(hmac.digest(secret, b"media", "sha256"))
        self._callback_secret = hmac.digest(secret, b"callbacks", "sha256")
        self._settings = settings
        self.clock = clock

    def end(self, file_expires_at: datetime | None, *, lifetime_s: int | None = None) -> int:
        """Unix time at which a link that is made now expires, at the latest when the file is deleted. Without
        `lifetime_s` it lives as long as the setting says."""
        end = int(self.clock().timestamp()) + (lifetime_s or self._settings.media_url_ttl_s)
        return end if file_expires_at is None else min(end, int(file_expires_at.timestamp()))

    def video(self, video_id: str, index: int, content_type: str | None, *, end: int, origin: str) -> str:
        """A link that plays without a key until `end`. Its suffix is that of the content type."""
        path = f"/media/{video_id}/{index}.{suffix_of(content_type)}"
        return self._signed(path, end, self._settings.public_url or origin)

    def picture(self, video_id: str, index: int, kind: Variant, *, end: int, origin: str) -> str:
        """A link to a picture of a video file until `end`. The picture is made when the link is first opened."""
        path = f"/media/{video_id}/{index}.{VARIANTS[kind][0]}"
        return self._signed(path, end, self._settings.public_url or origin)

    def for_upstream(self, medium: Media) -> str | None:
        """A URL at which an upstream can fetch a medium; None if only this gateway can read it."""
        name = f"{medium.video_id}/0.{suffix_of(None)}" if medium.video_id is not None else medium.key
        if name is None or self._settings.public_url is None:
            return medium.url
        expires = int(self.clock().timestamp()) + UPLOAD_LINK_S
        return self._signed(f"/media/{name}", expires, self._settings.public_url)

    def verify(self, path: str, exp: str, sig: str) -> bool:
        return self._signer.verify(path, exp, sig, self.clock().timestamp())

    def callback(self, attempt_id: str) -> str | None:
        """URL for an upstream's callback about an attempt; None without a public URL."""
        if self._settings.public_url is None:
            return None
        return f"{self._settings.public_url}/callbacks/{attempt_id}/{self.callback_token(attempt_id)}"

    def callback_token(self, attempt_id: str) -> str:
        digest = hmac.digest(self._callback_secret, attempt_id.encode(), "sha256")
        return urlsafe_b64encode(digest[:24]).decode()

    def _signed(self, path: str, expires: int, origin: str) -> str:
        return f"{origin}{path}?{self._signer.sign(path, expires)}"
