"""Sends webhooks: renders the body, signs it, and posts it through the guarded client."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from app import ids, net
from app.db import rows
from app.db.models import Delivery, Video, WebhookEndpoint
from app.media.signed_links import SignedLinks
from app.settings import Settings
from app.telemetry import traces
from app.telemetry.logs import log
from app.webhooks import endpoints, events, signing

MAX_ANSWER_CHARACTERS = 2_048

SAMPLE_VIDEO_ID = f"video_{'0' * 26}"
"""Video id in a test event; no such video exists."""


def _unsigned(secrets: Sequence[str], webhook_id: str, body: bytes, now: datetime) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class WebhookStyle:
    """Body and signature of events for the URL given with a request. Each dialect with webhooks has one."""

    name: str
    """At most 16 characters; stored with each delivery."""
    body: Callable[[Video, SignedLinks, str], dict[str, Any]]
    """Render a video, given links and the origin of this gateway: the `data` of an event for `standard`, else the
    whole body."""
    sign: Callable[[Sequence[str], str, bytes, datetime], dict[str, str]] = _unsigned
    """Headers that sign a body, given secrets (newest first), webhook id, body and time."""


@dataclass(frozen=True)
class Answer:
    """Result of one call."""

    status: int | None
    """HTTP status; None: no answer."""
    duration_ms: int
    text: str | None = None
    error: str | None = None
    """Reason why the call does not count as delivered; None: it does."""


class Sender:
    """Renders, signs and sends events; does not use the database."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], datetime],
        links: SignedLinks,
        styles: Mapping[str, WebhookStyle],
    ) -> None:
        self._timeout_s = settings.webhook_timeout_s
        self._own_url = f"http://{settings.host}:{settings.port}"
        self._clock = clock
        self._links = links
        self._styles = styles
        self._client = net.guarded(
            allow=settings.allow_networks, timeout_s=settings.webhook_timeout_s, proxies=_proxies(settings)
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def deliver(self, delivery: Delivery, secrets: Sequence[str], url: str) -> Answer:
        """Send a delivery once. Never raises."""
        try:
            body = _encoded(self._document(delivery))
        except Exception:
            log.exception("webhook body not rendered")
            return Answer(None, 0, error="the gateway could not make the body; the reason is in its log")
        sign = self._style(delivery.style).sign
        headers = _headers(delivery.id, sign(secrets, delivery.id, body, self._clock()))
        return await self._post(url, body, headers, self._timeout_s)

    async def test(self, endpoint: WebhookEndpoint, event_type: str, *, longest_s: float | None = None) -> Answer:
        """Send a sample event, once; `longest_s` may shorten the wait for the answer. Never raises."""
        now = self._clock()
        body = _encoded(events.event(ids.new("evt"), event_type, now, {"id": SAMPLE_VIDEO_ID}))
        webhook_id = ids.new("wh")
        signed = signing.standard_headers(endpoints.secrets_of(endpoint, now), webhook_id, body, now)
        timeout_s = self._timeout_s if longest_s is None else min(longest_s, self._timeout_s)
        return await self._post(endpoint.url, body, _headers(webhook_id, signed), timeout_s)

    def _document(self, delivery: Delivery) -> dict[str, Any]:
        data = delivery.data
        if data is None:
            video = rows.from_values(Video, delivery.video or {})
            origin = (video.request.get("webhook") or {}).get("origin") or self._own_url
            data = self._style(delivery.style).body(video, self._links, origin)
        if delivery.style != signing.STANDARD:
            return data
        return events.event(delivery.event_id, delivery.event_type, delivery.created_at, data)

    def _style(self, name: str) -> WebhookStyle:
        """The style of a delivery; after a dialect was removed, an unsigned one with id and status only."""
        return self._styles.get(name) or WebhookStyle(name, body=_minimal)

    async def _post(self, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        started = time.perf_counter()
        status, text, error = None, None, None
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream("POST", url, content=body, headers={**headers, **traces.headers()}) as r,
            ):
                status = r.status_code
                text = await _beginning(r)
        except net.ForbiddenAddress as refused:
            error = f"{refused}, so nothing was sent; the operator can allow private networks"
        except net.ProxyRefused as refused:
            log.warning("webhook refused by the proxy", reason=str(refused))
            error = f"no answer: the gateway's proxy {refused.reason}"  # without its name, which is the operator's
        except TimeoutError:
            error = f"no answer within {timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = f"no answer: {str(failure)[:300] or type(failure).__name__}"
        except UnicodeError:  # a stored URL with a host that does not decode; older versions accepted it
            error = "no answer: the host name of the address is invalid"
        except Exception as failure:  # a receiver can send anything; it must not stop the worker
            log.exception("webhook call failed unexpectedly")
            error = f"no answer: {type(failure).__name__}"
        if status is not None:  # the status counts, even if the rest of the answer could not be read
            redirected = "; redirects are not followed" if 300 <= status < 400 else ""
            error = None if 200 <= status < 300 else f"answered {status}{redirected}"
        return Answer(status, round((time.perf_counter() - started) * 1000), text, error)


def _proxies(settings: Settings) -> net.Proxies:
    """The outbound proxy of webhooks, which is logged; none unless it is set."""
    if settings.webhook_proxy is None:
        return net.DIRECT
    proxies = net.through(settings.webhook_proxy.get_secret_value(), "GATEWAY_WEBHOOK_PROXY")
    for name in proxies.names:
        log.info("outbound proxy used", proxy=name, source=proxies.source, webhooks=True)
    return proxies


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


async def _beginning(response: httpx.Response) -> str:
    """The first characters of an answer; the rest is never read. Ends early at a read error."""
    raw = b""
    with suppress(httpx.HTTPError):
        async for chunk in response.aiter_raw(4_096):
            raw += chunk
            if len(raw) >= 4 * MAX_ANSWER_CHARACTERS:
                break
    return raw.decode(errors="replace").replace("\x00", "")[:MAX_ANSWER_CHARACTERS]


def _headers(webhook_id: str, signed: Mapping[str, str]) -> dict[str, str]:
    return {"content-type": "application/json", "webhook-id": webhook_id, **signed}


def _minimal(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    failure = {"error": {"code": video.error_code, "message": video.error_message}} if video.error_code else {}
    return {"id": video.id, "status": str(video.status), **failure}
