"""Client of the gateway for the command line: creates a video, shows its progress, downloads it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app import net
from app.media.sniff import suffix_of
from app.settings import environment_proxies

UNFINISHED = ("queued", "in_progress")
POLL_S = 0.5
STREAM_SILENCE_S = 45
"""Read timeout of the event stream; longer than the server's keep-alive interval."""
PATIENCE = 60
"""Consecutive polls that may fail."""


class ClientError(Exception):
    """A failure whose message is printed for the user."""


async def generate_video(base_url: str, key: str, fields: dict[str, str], out: Path | None, console: Console) -> Path:
    """Create a video, show its progress on `console`, save the file, return its path. Raises `ClientError`."""
    name_of = _naming(out)
    _require_sendable(key, fields)
    proxies = _proxies()
    async with net.upstream(timeout_s=60, connections=2, proxies=proxies) as http:
        http.headers["authorization"] = f"Bearer {key}"
        video = await _create(http, base_url, fields, proxies)
        where = f"{base_url}/videos/{video['id']}"
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task("queued", total=100)
            async for latest in _watch(http, where, video):
                video = latest
                bar.update(task, completed=video["progress"], description=video["status"].replace("_", " "))
        if video["status"] != "completed":
            raise ClientError(f"{video['id']} failed: {video['error']['message']} ({video['error']['code']})")
        target = name_of(video["id"], suffix_of((video.get("output") or {}).get("content_type")))
        await _download(http, f"{where}/content", target, console)
        return target


def _naming(out: Path | None) -> Callable[[str, str], Path]:
    """Return the function that names the file by id and suffix. Raises `ClientError` before anything is paid for."""
    if out is None or out.is_dir():
        return lambda video_id, suffix: (out or Path()) / f"{video_id}.{suffix}"
    if not out.absolute().parent.is_dir():
        raise ClientError(f"{out} cannot be written: there is no directory {out.absolute().parent}")
    return lambda _id, _suffix: out


def _require_sendable(key: str, fields: dict[str, str]) -> None:
    """Raise `ClientError` for text that cannot be sent; the command line passes bytes of any encoding on."""
    if not key.isascii() or not key.isprintable():
        raise ClientError("the API key has characters that no key has; check --key and OPENAI_API_KEY")
    for name, text in fields.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ClientError(f"{name} is not UTF-8 text; check the encoding of the terminal") from None


def _proxies() -> net.Proxies:
    """The proxies of the environment, which the gateway on this machine is called without. Raises `ClientError`."""
    try:
        return net.of_environment(environment_proxies())
    except ValueError as error:
        raise ClientError(f"{error}; or unset it") from None


async def _create(
    http: httpx.AsyncClient, base_url: str, fields: dict[str, str], proxies: net.Proxies
) -> dict[str, Any]:
    try:
        response = await http.post(f"{base_url}/videos", json=fields)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        raise ClientError(f"{base_url!r:.200} is not an address; --url expects http://host:port/v1") from None
    except httpx.HTTPError as error:
        if (proxy := proxies.of(httpx.URL(base_url))) is not None:
            reason = f"no answer ({type(error).__name__})"
            if isinstance(error, net.ProxyRefused):
                reason = f"it {error.reason}"
            raise ClientError(
                f"{base_url} cannot be reached through the proxy {proxy.name}: {reason}\n"
                f"{proxies.source} of the environment names it; NO_PROXY={httpx.URL(base_url).host} calls without it."
            ) from error
        raise ClientError(
            f"{base_url} cannot be reached ({type(error).__name__}); is the server running there? Start it with\n"
            "  video-gateway serve\nor name another address with --url."
        ) from error
    return _document(response)


async def _watch(http: httpx.AsyncClient, url: str, video: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yield the video after each change until it has ended: from the event stream, or by polling if there is none."""
    streams = True
    yield video
    while video["status"] in UNFINISHED:
        if streams:
            try:
                async with http.stream("GET", f"{url}/events", timeout=STREAM_SILENCE_S) as response:
                    streams = response.headers.get("content-type", "").startswith("text/event-stream")
                    async for line in response.aiter_lines():
                        if streams and line.startswith("data: "):
                            video = json.loads(line.removeprefix("data: "))
                            yield video
            except (httpx.HTTPError, ValueError):
                pass  # disconnected: poll once, then reconnect
        if video["status"] in UNFINISHED:
            await asyncio.sleep(POLL_S)
            video = await _poll(http, url)
            yield video


async def _poll(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Read the video; retry while the server is unavailable, because the job continues without this client."""
    for patience in reversed(range(PATIENCE)):
        try:
            response = await http.get(url)
        except httpx.HTTPError as error:
            if not patience:
                raise ClientError(
                    f"the server is gone ({type(error).__name__}); the video may still be made: {url}"
                ) from error
        else:
            if response.status_code < 500 or not patience:
                return _document(response)
        await asyncio.sleep(POLL_S)
    raise AssertionError("unreachable")


def _document(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise ClientError(_message(response))
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or not {"id", "status", "progress"} <= document.keys():
        raise ClientError(f"{response.url} is not a video gateway; --url takes its address up to and including /v1")
    return document


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url.host} answered {response.status_code}; --url takes a gateway's address, including /v1"


async def _download(http: httpx.AsyncClient, url: str, target: Path, console: Console) -> None:
    """Write to a temporary file first, so that a broken download never looks like a video file."""
    unfinished = target.with_name(target.name + ".part")
    try:
        async with http.stream("GET", url) as response:
            if not response.is_success:
                await response.aread()
                raise ClientError(_message(response))
            total = int(response.headers.get("content-length", 0)) or None
            columns = (TextColumn("saving"), BarColumn(), DownloadColumn())
            with Progress(*columns, console=console, transient=True) as bar, unfinished.open("wb") as file:
                task = bar.add_task("saving", total=total)
                async for chunk in response.aiter_bytes(2**20):
                    file.write(chunk)
                    bar.update(task, advance=len(chunk))
        unfinished.replace(target)
    except (httpx.HTTPError, OSError) as error:
        unfinished.unlink(missing_ok=True)
        raise ClientError(f"{target} could not be saved: {error}") from error
