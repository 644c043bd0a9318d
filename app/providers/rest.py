"""Base class of adapters for HTTP APIs: calls, downloads, errors, removal of secrets from texts.

An adapter contains only what is specific to its vendor; it may override methods of the base class, mostly
`error_from` and `read_error`.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import httpx

from app import errors, net
from app.media.uploads import CHUNK_BYTES
from app.net.transport import NotSent, Once, hold_until
from app.providers import embedded
from app.providers.answers import (
    CONTENT_POLICY_WORDS,
    CREDIT_WORDS,
    address,
    declared_size,
    decoded_headers,
    error_words,
    is_usable,
    reported_micros,
    retry_after_s,
    secret_pattern,
    shortened,
)
from app.providers.base import OPEN, Download, NotBegun, Outbound, Provider, ProviderConfig, Task
from app.providers.outputs import Place, find_output, sent_urls
from app.telemetry import traces
from app.telemetry.logs import log
from app.telemetry.metrics import UPSTREAM_ERRORS, UPSTREAM_SECONDS
from app.video import Failure, Output, Progress, Status, Submission

MAX_ANSWER_BYTES = 8 * 2**20
"""Size limit of an answer that is not a file, without what is cut of its long strings."""
MAX_REDIRECTS = 5
FILES_AT_ONCE = 16
CHARACTERS_AT_ONCE = 4
LEAST_UPLOAD_RATE = 64 * 2**10
"""Bytes per second below which a body that is sent is given up."""
NEVER_CONNECTED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    net.ProxyRefused,
)
NOT_STOPPED = (400, 405, 409, 422, 501)
"""Statuses of an upstream that does not stop a task, or has no call for it."""
CANCELLED_WORDS = ("cancelled", "canceled", "aborted", "deleted")


class RestProvider(Provider):
    """A provider with an HTTP API: one client for its configured host, a guarded one for all other addresses."""

    cost_place: ClassVar[Place] = ()
    """Place of the cost in US dollars in the answer to a poll; empty: the vendor reports none."""
    needs_whole_body = True  # neither JSON nor a form can be read before its end
    key_origins: ClassVar[tuple[str, ...]] = ("base_url",)
    """Settings whose addresses get the credential."""

    def __init__(self, name: str, config: ProviderConfig, outbound: Outbound = OPEN) -> None:
        super().__init__(name, config, outbound)
        self._secret_pattern = secret_pattern(self._secret) if self._secret else None
        # Submits have turns of their own, so that slow polls and other calls never stand before them; so have
        # characters, for which a request handler waits. Turns are taken before httpx's pool, which scans all waiting
        # requests on every change.
        submits, others = (asyncio.Semaphore(config.connections) for _ in range(2))
        self._turns = defaultdict(
            lambda: others, submit=submits, prepare=submits, character=asyncio.Semaphore(CHARACTERS_AT_ONCE)
        )
        connections = 2 * config.connections + CHARACTERS_AT_ONCE + FILES_AT_ONCE
        self.http = net.upstream(timeout_s=config.timeout_s, connections=connections, proxies=outbound.proxies)
        self.guarded = net.guarded(allow=outbound.allow_networks, timeout_s=config.timeout_s, proxies=outbound.proxies)

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.guarded.aclose()

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        """Open the finished file at the URL in `output`, or within the answer to another poll; see the base class."""
        if output.inline is not None:
            async with self._embedded(task, output.inline) as download:
                yield download
            return
        if output.url is None:
            raise errors.UpstreamGone("the upstream named no file", provider=self.name)
        async with self.download(output.url, authenticated=output.authenticated) as download:
            yield download

    def poll_path(self, task: Task) -> str:
        """The path and query of the poll of one task, below `base_url`."""
        raise NotImplementedError

    def poll_body(self, task: Task) -> dict[str, Any] | None:
        """The JSON that the poll of one task sends, by POST; None: a GET."""
        return None

    @property
    def auth(self) -> dict[str, str]:
        """Headers for requests to the addresses of `key_origins` only: the credential."""
        return {"authorization": f"Bearer {self._secret}"} if self._secret else {}

    async def submit_call(self, task: Task, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send the paid request of a submit; returns 2xx, raises an `UpstreamError` for all else.

        `task.begin` is awaited right before the first byte, or before the last piece of a long body (see
        `needs_whole_body`). A failure before that is never an `UpstreamUnknown`; every failure after it, after which
        the upstream may have taken the task, is one.
        """
        begin = Once(task.begin)
        try:
            return await self._call("submit", method, path, begin, **kwargs)
        except errors.UpstreamUnknown as error:
            if begin.done:
                raise
            raise errors.UpstreamUnavailable(error.message, provider=self.name, body=error.body) from error

    async def call(
        self,
        verb: Literal["prepare", "poll", "list", "check", "cancel", "character"],
        method: str,
        path: str,
        **kwargs: Any,
    ) -> httpx.Response:
        """Send one free request below `base_url`, or the `origin` of another of `key_origins`; returns 2xx, raises an
        `UpstreamError` for all else."""
        return await self._call(verb, method, path, None, **kwargs)

    async def cancel_call(
        self, method: str, path: str, *, refusals: Collection[int] = NOT_STOPPED
    ) -> httpx.Response | bool:
        """Send a cancel; returns the answer, or True if the task is gone, False if the upstream refuses to stop it."""
        try:
            return await self.call("cancel", method, path)
        except errors.UpstreamGone:
            return True
        except errors.UpstreamError as error:
            if error.upstream_status in refusals:
                return False
            raise

    async def _call(
        self, verb: str, method: str, path: str, begin: Once | None, *, origin: str | None = None, **kwargs: Any
    ) -> httpx.Response:
        origin = self.config.base_url if origin is None else origin
        if origin not in self._key_addresses:
            raise AssertionError("the key is sent to configured addresses only")
        given = kwargs.pop("headers", {})
        started = time.perf_counter()
        try:
            with traces.call(method, origin, verb, provider=self.name):
                headers = {**self.auth, **given}
                response = await self._request(verb, method, origin + path, begin=begin, headers=headers, **kwargs)
                traces.note(status_code=response.status_code)
                if not response.is_success:
                    raise self.error_from(verb, response)
                return response
        except errors.UpstreamError as error:
            UPSTREAM_ERRORS.labels(self.name, verb, error.code).inc()
            raise
        finally:
            UPSTREAM_SECONDS.labels(self.name, verb).observe(time.perf_counter() - started)

    async def _request(self, verb: str, method: str, url: str, *, begin: Once | None, **kwargs: Any) -> httpx.Response:
        try:
            request = self.http.build_request(method, url, **kwargs)
            if begin is not None:
                hold_until(begin, request, whole_body=self.needs_whole_body)
            async with self._turns[verb], asyncio.timeout(self.limit_s(request)):
                response = await self.http.send(request, stream=True)
                try:
                    return await self._read(verb, response)
                finally:
                    await response.aclose()
        except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
            if isinstance(error, NotSent) or (begin is not None and begin.called and not begin.done):
                raise NotBegun(f"not sent after it was recorded ({type(error).__name__})") from error
            unsent = isinstance(error, NEVER_CONNECTED) if begin is None else not begin.done
            if not unsent and not isinstance(error, net.ProxyRefused):
                raise self.unreadable(verb, f"no answer ({type(error).__name__})") from error
            if isinstance(error, NEVER_CONNECTED):
                message, note = f"{self.name} cannot be reached ({type(error).__name__})", self.proxy_note(url, error)
                raise errors.UpstreamUnreachable(message, provider=self.name, body=note) from error
            message = f"{self.name} did not take the whole request ({type(error).__name__})"
            raise errors.UpstreamUnavailable(message, provider=self.name) from error

    def limit_s(self, request: httpx.Request) -> float:
        """Time limit for a whole call: that of the settings, and what its body takes at the least rate."""
        length = request.headers.get("content-length", "0")
        return self.config.timeout_s + (int(length) if length.isdigit() else 0) / LEAST_UPLOAD_RATE

    async def _read(self, verb: str, response: httpx.Response) -> httpx.Response:
        """Read the whole body into memory; long strings of JSON, which may be a whole file, are cut. Raises the error
        of `unreadable` beyond `MAX_ANSWER_BYTES`, or `MAX_JSON_BYTES` with what is cut."""
        body, size = embedded.JsonCutter(), 0
        async for piece in net.unpacked(response, embedded.PIECE_BYTES):
            body.feed(piece)
            size += len(piece)
            if len(body.kept) > MAX_ANSWER_BYTES or size > embedded.MAX_JSON_BYTES:
                raise self.unreadable(verb, f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        headers = decoded_headers(response.headers)
        return httpx.Response(response.status_code, headers=headers, content=bytes(body.kept))

    def json(self, verb: str, response: httpx.Response) -> dict[str, Any]:
        """The answer as a JSON object. Raises the error of `unreadable` for anything else."""
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self.unreadable(verb, "the answer is not a JSON object", response)
        return document

    def ref_of(self, verb: str, document: dict[str, Any], response: httpx.Response) -> str:
        """The id in an answer. Raises the error of `unreadable`, with the upstream's words, if it is missing or cannot
        be used."""
        ref = document.get("id")
        if not is_usable(ref):
            words = self.scrub(" ".join(filter(None, self.read_error(response))))
            raise self.unreadable(verb, "the answer carries no usable id" + (f": {words}" if words else ""), response)
        return ref

    def status_of(self, words: Mapping[str, Status], word: Any, *, erred: bool = False) -> tuple[Status, str]:
        """Map an upstream's status word; returns the status and the scrubbed word. An unknown word counts as
        in_progress, or as failed if the answer also has an error (`erred`)."""
        status = words.get(str(word)[:100].lower().replace("-", "_"))
        raw = self.scrub(str(word))[:100]
        if status is None:
            status = Status.failed if erred and word and isinstance(word, str) else Status.in_progress
            log.warning("unknown upstream status", provider=self.name, status=raw, mapped_to=str(status))
        return status, raw

    def accepted(self, words: Mapping[str, Status], response: httpx.Response, *, key: str = "status") -> Submission:
        """Parse the answer to a submit; a task that has already ended counts as in_progress until the first poll."""
        task = self.json("submit", response)
        status, raw = self.status_of(words, task.get(key))
        status = Status.in_progress if status.ended else status
        return Submission(ref=self.ref_of("submit", task, response), status=status, raw_status=raw)

    def learned(
        self,
        task: Task,
        job: dict[str, Any],
        status: Status,
        raw: str,
        *,
        first: Collection[Place] = (),
        error: Any = None,
        code: str | None = None,
    ) -> Progress:
        """Parsed answer to a poll, for APIs that name the file in it, at the documented places `first` or any other;
        completed without a file is failed."""
        failure = self.failure(raw, error, code=code) if status is Status.failed else None
        output = find_output(job, first=first, sent=sent_urls(task)) if status is Status.completed else None
        if status is Status.completed and output is None:
            status, failure = Status.failed, self.no_output(raw, job)
        cost = reported_micros(job, self.cost_place)
        return Progress(status=status, raw_status=raw, output=output, failure=failure, reported_micros=cost)

    def no_output(self, raw: str, job: dict[str, Any]) -> Failure:
        """The failure of a finished task without a file, with the answer for the operator."""
        message = f"{self.name} reports the video as {raw}: completed, but names no file"
        return Failure(code="no_output", message=message, body=self.kept(job))

    def kept(self, document: dict[str, Any]) -> str:
        """An answer as text for the operator: its long texts shortened, without secrets."""
        try:
            text = json.dumps(document, ensure_ascii=False)
        except RecursionError:
            return ""
        return shortened(self.scrub(text, limit=len(text)))

    def failure(self, raw: str, message: Any, *, code: str | None = None) -> Failure:
        """Build the failure of a task, with the upstream's message if there is one."""
        if code is None:
            word = raw.lower()
            code = "cancelled" if word in CANCELLED_WORDS else "expired" if word == "expired" else "generation_failed"
        text = self.scrub(message if isinstance(message, str) else json.dumps(message) if message else "")
        if any(word in f"{code} {text}".lower() for word in CONTENT_POLICY_WORDS):
            code = errors.ContentPolicy.default_code
        return Failure(code=self.scrub(code)[:100], message=text or f"{self.name} reports the video as {raw.lower()}")

    def foreign_source(self) -> errors.UpstreamRejected:
        """The error for an extension or a remix of a video that another provider made."""
        return errors.UpstreamRejected(f"{self.name} can only extend or remix a video it has made", provider=self.name)

    def unreadable(self, verb: str, why: str, response: httpx.Response | None = None) -> errors.UpstreamError:
        """Build the error for an unusable answer: `UpstreamUnknown` for a submit, else `UpstreamUnavailable`."""
        kind = errors.UpstreamUnknown if verb == "submit" else errors.UpstreamUnavailable
        return kind(
            f"{self.name}: {why}",
            provider=self.name,
            upstream_status=response.status_code if response is not None else None,
            body=self.scrub(response.text) if response is not None else None,
        )

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        """Map an answer that is not 2xx to an error: by HTTP status first, by words second."""
        status = response.status_code
        code, message = self.read_error(response)
        words = f"{code or ''} {message}".lower()
        details: dict[str, Any] = {
            "provider": self.name,
            "upstream_status": status,
            "body": self.scrub(response.text),
            "retry_after_s": retry_after_s(response.headers),
        }
        text = self.scrub(message) if message else f"{self.name} answered {status}"
        if status == 402 or (status in (403, 429) and any(word in words for word in CREDIT_WORDS)):
            return errors.UpstreamCredit(f"the gateway's account at {self.name} has no credit left", **details)
        if status in (401, 403) and not any(word in words for word in CONTENT_POLICY_WORDS):
            return errors.UpstreamAccount(f"{self.name} refuses the gateway's credentials ({status})", **details)
        if status == 429:
            return errors.UpstreamRateLimited(f"{self.name} is busy ({status})", **details)
        if status in (404, 410) and verb != "submit":
            return errors.UpstreamGone(text, **details)
        if status in (300, 301, 302, 303, 304):
            return self.unreadable(verb, f"answered with a redirect ({status}); check its base URL", response)
        if status in (307, 308, 405, 407, 421):
            return errors.UpstreamAccount(f"{self.name} answers {status}; check its base URL", **details)
        if status >= 500 or status in (408, 409, 425):
            certain = verb != "submit" or (status == 503 and self._is_own_refusal(response))
            kind = errors.UpstreamUnavailable if certain else errors.UpstreamUnknown
            return kind(f"{self.name} answered {status}" + (f": {text}" if message else ""), **details)
        if any(word in words for word in CONTENT_POLICY_WORDS):
            return errors.ContentPolicy(text, **details)
        return errors.UpstreamRejected(text, **details)

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        """True if a 503 is the upstream's own refusal: JSON, or with Retry-After. A proxy has neither; it also answers
        503 when its connection to the upstream breaks after the task was taken."""
        return "retry-after" in response.headers or "json" in response.headers.get("content-type", "")

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        """Return (code, message) of an error answer in any of the usual envelopes."""
        return error_words(response)

    @property
    def _key_addresses(self) -> tuple[str, ...]:
        return tuple(filter(None, (getattr(self.config, name) for name in self.key_origins)))

    def scrub(self, text: str, *, limit: int = 500) -> str:
        """Remove the key, the configured addresses and secrets in other URLs from a text; cut it to `limit`
        characters."""
        text = net.redact_urls(self._secret_pattern.sub("[key]", text) if self._secret_pattern else text)
        for inner in self._key_addresses:
            text = text.replace(inner, self.name).replace(httpx.URL(inner).netloc.decode(), self.name)
        return " ".join(text.replace("\0", "").encode(errors="replace").decode().split())[:limit]

    @asynccontextmanager
    async def _embedded(self, task: Task, path: tuple[str | int, ...]) -> AsyncIterator[Download]:
        """Open the file that the string at `path` of the answer to a poll encodes: the answer is asked for once more
        and decoded while it is read. Raises `UpstreamGone` if it has none there now."""
        url = self.config.base_url + self.poll_path(task)
        async with self.download(url, authenticated=True, body=self.poll_body(task)) as answer:
            try:
                content_type, chunks = await embedded.open_file(answer.chunks, path)
                yield Download(chunks=chunks, content_type=content_type)
            except embedded.MissingString as error:
                message = f"{self.name} no longer has the file in its answer"
                raise errors.UpstreamGone(message, provider=self.name) from error
            except embedded.BrokenString as error:
                message = f"the file in the answer of {self.name} is cut or not base64"
                raise errors.UpstreamUnavailable(message, provider=self.name) from error

    @asynccontextmanager
    async def download(
        self, url: str, *, authenticated: bool, body: dict[str, Any] | None = None
    ) -> AsyncIterator[Download]:
        """Open the file at `url`, following redirects. The key, and `body`, are sent to the configured origin only; all
        other hosts are reached through the guarded client. Raises `UpstreamGone` if the file is not there, or if a URL
        is refused that was requested without the key: it has expired."""
        limit = asyncio.timeout(self.config.file_timeout_s)
        try:
            async with limit, self._opened(url, authenticated, body) as download:
                yield download
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise errors.UpstreamUnavailable(
                f"{self.name} took longer than {self.config.file_timeout_s:g} s to send the file", provider=self.name
            ) from error

    @asynccontextmanager
    async def _opened(self, url: str, authenticated: bool, body: dict[str, Any] | None) -> AsyncIterator[Download]:
        home = httpx.URL(self.config.base_url) if self.config.base_url else None
        try:
            target = address(home, url)
        except (httpx.InvalidURL, ValueError) as error:
            raise errors.UpstreamGone(f"{self.name} named an invalid file URL", provider=self.name) from error
        for _ in range(MAX_REDIRECTS + 1):
            same_host = home is not None and target.host == home.host
            same_origin = same_host and home is not None and (target.scheme, target.port) == (home.scheme, home.port)
            client = self.http if same_host else self.guarded
            with_key = authenticated and same_origin
            headers = {"accept": "video/*, */*;q=0.5", **(self.auth if with_key else {})}
            method, document = ("GET", None) if body is None or not with_key else ("POST", body)
            try:
                request = client.build_request(method, target, headers=headers, json=document)
                async with net.answering(client, request, timeout_s=self.config.timeout_s) as response:
                    location = response.headers.get("location")
                    if response.is_redirect and location:
                        target = self._redirected(target, location)
                        continue
                    if not response.is_success:
                        async with asyncio.timeout(self.config.timeout_s):
                            refusal = self.error_from("fetch", await self._read("fetch", response))
                        if isinstance(refusal, errors.UpstreamAccount) and not with_key:
                            raise errors.UpstreamGone(refusal.message, provider=self.name, body=refusal.body)
                        raise refusal
                    yield Download(
                        chunks=net.unpacked(response, CHUNK_BYTES),
                        content_type=response.headers.get("content-type"),
                        size=declared_size(response.headers),
                    )
                    return
            except (httpx.RequestError, httpx.InvalidURL) as error:
                if isinstance(error, net.ForbiddenAddress):
                    log.warning("result address refused", provider=self.name, reason=str(error))
                    message = f"{self.name} named a file in a private network, which the gateway must not reach"
                    raise errors.UpstreamGone(message, provider=self.name) from error
                message = f"the file could not be fetched from {self.name} ({type(error).__name__})"
                note = self.proxy_note(target, error)
                raise errors.UpstreamUnavailable(message, provider=self.name, body=note) from error
        raise errors.UpstreamUnavailable(f"{self.name} redirects the file too many times", provider=self.name)

    def _redirected(self, target: httpx.URL, location: str) -> httpx.URL:
        try:
            return address(target, location)
        except (httpx.InvalidURL, ValueError) as error:
            message = f"{self.name} redirects the file to an invalid URL"
            raise errors.UpstreamUnavailable(message, provider=self.name) from error
