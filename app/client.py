"""A small client of the gateway for the command line: create, watch, download."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app import net


class ClientError(Exception):
    """What went wrong, in words for a person at a terminal."""


async def generate(base_url: str, key: str, fields: dict[str, str], out: Path | None, console: Console) -> Path:
    """Create a video, show its progress on `console`, save the file; returns its path. Raises `ClientError`."""
    async with net.upstream(timeout_s=60, connections=2) as http:
        http.headers["authorization"] = f"Bearer {key}"
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task("queued", total=100)
            video = await _call(http, "POST", f"{base_url}/videos", json=fields)
            while video["status"] in ("queued", "in_progress"):
                bar.update(task, completed=video["progress"], description=video["status"].replace("_", " "))
                await asyncio.sleep(0.5)
                video = await _call(http, "GET", f"{base_url}/videos/{video['id']}")
        if video["status"] != "completed":
            raise ClientError(f"{video['id']} failed: {video['error']['message']} ({video['error']['code']})")
        target = out or Path(f"{video['id']}.mp4")
        await _download(http, f"{base_url}/videos/{video['id']}/content", target, console)
        return target


async def _call(http: httpx.AsyncClient, method: str, url: str, **options: Any) -> dict[str, Any]:
    try:
        response = await http.request(method, url, **options)
    except httpx.HTTPError as error:
        raise ClientError(
            f"{url} cannot be reached ({type(error).__name__}); is the server running? Start it with\n"
            "  video-gateway serve"
        ) from error
    if not response.is_success:
        raise ClientError(_message(response))
    document: dict[str, Any] = response.json()
    return document


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}"


async def _download(http: httpx.AsyncClient, url: str, target: Path, console: Console) -> None:
    """Write to a neighbour first, so that a broken download never looks like a film."""
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
