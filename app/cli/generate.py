"""Client of the gateway for the command line, `generate` and `cancel`: creates a video, shows its progress, downloads
it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app import ids, net
from app.accounts import secrets
from app.cli.manage import complaints, load, this_command
from app.media.sniff import suffix_of
from app.settings import ConfigurationError, Settings, environment_proxies

UNFINISHED = ("queued", "in_progress")
POLL_S = 0.5
STREAM_SILENCE_S = 45
"""Read timeout of the event stream; longer than the server's keep-alive interval."""
PATIENCE = 60
"""Consecutive polls that may fail."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""


class ClientError(Exception):
    """A failure whose message is printed for the user."""


Url = Annotated[
    str | None,
    typer.Option(
        envvar="OPENAI_BASE_URL", help="URL of the gateway, including /v1 (default: the one configured here)."
    ),
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="OPENAI_API_KEY", help="API key for --url (default: the one configured here).")
]


def generate(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="Description of the video.")] = None,
    model: Annotated[str | None, typer.Option(help="Name as listed by `models` (default: the server's).")] = None,
    seconds: Annotated[str | None, typer.Option(help="Length in seconds (default: the model's).")] = None,
    size: Annotated[str | None, typer.Option(help="1280x720, or a ratio such as 16:9 (default: the model's).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File or directory to write to (default: the video's id and the suffix of its type)."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Wait for this video and save it, instead of making a new one.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Create a video on a running gateway, show its progress, save it, and print the path.

    The video's id is printed first, on standard error. Ctrl-C ends the command and not the video, which is paid for
    once it is finished: `--resume ID` waits for it and saves it, `video-gateway cancel ID` cancels it.
    """
    fields = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    given = {name: value for name, value in fields.items() if value is not None}
    if (prompt is None) == (resume is None) or (resume is not None and given):
        raise typer.BadParameter("expected a prompt and its options, or --resume ID without them")
    client = _client(context, url, key)
    try:
        print(asyncio.run(client.generate(given, resume, out)))
    except KeyboardInterrupt:
        complaints.print(client.farewell(), highlight=False, soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None


def cancel(
    context: typer.Context,
    video_id: Annotated[str, typer.Argument(help="As `generate` printed it.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Cancel a video that is queued or in progress. One that has ended stays as it is."""
    asyncio.run(_client(context, url, key).cancel(video_id))
    complaints.print(f"{video_id} is cancelled.", highlight=False, soft_wrap=True, markup=False)


def _client(context: typer.Context, url: str | None, key: str | None) -> "Client":
    config = load()
    source = context.get_parameter_source("key")
    if url is None and source is not None and source.name == "ENVIRONMENT":
        key = None  # often set for another server, such as OpenAI's
    base_url = (url or f"{config.public_url or f'http://127.0.0.1:{config.port}'}/v1").rstrip("/")
    source = context.get_parameter_source("url")
    given = f" --url {url}" if url is not None and source is not None and source.name == "COMMANDLINE" else ""
    return Client(base_url, key or _own_key(config), complaints, options=given)


def _own_key(config: Settings) -> str:
    key = next(iter(config.static_keys), None) or secrets.existing_key(config)
    if key is None:
        raise ConfigurationError(
            f"there is no API key in {config.data_dir}. Give one with --key or OPENAI_API_KEY, set GATEWAY_DATA_DIR to "
            "the server's, or start the server here first:\n  video-gateway serve"
        )
    return key


class Client:
    """A client of one gateway, with one key."""

    def __init__(self, base_url: str, key: str, console: Console, *, options: str = "") -> None:
        self._base_url = base_url
        self._key = key
        self._proxies = _proxies()
        self._console = console
        self._options = options
        """The options of this command that a repeated one needs, too."""
        self._video_id: str | None = None

    async def generate(self, fields: dict[str, str], resume: str | None, out: Path | None) -> Path:
        """Create a video, or take the one to resume; show its progress, save the file, return its path. Raises
        `ClientError`."""
        name_of = _naming(out)
        _require_sendable(self._key, fields)
        async with self._open() as http:
            video = await (self._create(http, fields) if resume is None else self._read(http, resume))
            self._video_id = video["id"]
            self._console.print(f"{video['id']} {_words(video)}", style="dim", highlight=False, markup=False)
            video = await self._watch(http, video)
            if video["status"] != "completed":
                raise ClientError(f"{video['id']} failed: {video['error']['message']} ({video['error']['code']})")
            target = name_of(video["id"], suffix_of((video.get("output") or {}).get("content_type")))
            await _download(http, f"{self._address(video['id'])}/content", target, self._console)
            return target

    async def cancel(self, video_id: str) -> None:
        """Cancel a video. Raises `ClientError`, also if it has ended."""
        _require_sendable(self._key, {})
        async with self._open() as http:
            await self._read(http, video_id)  # which also finds out whether a gateway answers there
            response = await self._send(http, "DELETE", self._address(video_id), params={"expect": "running"})
            if not response.is_success:
                raise ClientError(_message(response))

    def farewell(self) -> str:
        """The sentence after Ctrl-C: what happens to the video, and the next step."""
        if self._video_id is None:
            return "Stopped before the gateway had answered. If it took the job, its list of videos has it."
        program, command = this_command(), f"{self._video_id}{self._options}"
        return (
            f"{self._video_id} is still being made.\n"
            f"  wait for it and save it:  {program} generate --resume {command}\n"
            f"  cancel it:                {program} cancel {command}"
        )

    def _open(self) -> httpx.AsyncClient:
        http = net.upstream(timeout_s=60, connections=2, proxies=self._proxies)
        http.headers["authorization"] = f"Bearer {self._key}"
        return http

    def _address(self, video_id: str) -> str:
        if not ids.is_id(video_id, "video"):
            raise ClientError(f"{video_id!r:.80} is not the id of a video; `generate` prints it, such as video_01k...")
        return f"{self._base_url}/videos/{video_id}"

    async def _create(self, http: httpx.AsyncClient, fields: Mapping[str, str]) -> dict[str, Any]:
        return _document(await self._send(http, "POST", f"{self._base_url}/videos", json=fields))

    async def _read(self, http: httpx.AsyncClient, video_id: str) -> dict[str, Any]:
        return _document(await self._send(http, "GET", self._address(video_id)))

    async def _send(self, http: httpx.AsyncClient, method: str, url: str, **content: Any) -> httpx.Response:
        try:
            return await http.request(method, url, **content)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            message = f"{self._base_url!r:.200} is not an address; --url expects http://host:port/v1"
            raise ClientError(message) from None
        except httpx.HTTPError as error:
            if (proxy := self._proxies.of(httpx.URL(self._base_url))) is not None:
                reason = f"no answer ({type(error).__name__})"
                if isinstance(error, net.ProxyRefused):
                    reason = f"it {error.reason}"
                raise ClientError(
                    f"{self._base_url} cannot be reached through the proxy {proxy.name}: {reason}\n"
                    f"{self._proxies.source} of the environment names it; NO_PROXY={httpx.URL(self._base_url).host} "
                    "calls without it."
                ) from error
            raise ClientError(
                f"{self._base_url} cannot be reached ({type(error).__name__}); is the server running there? Start it "
                "with\n  video-gateway serve\nor name another address with --url."
            ) from error

    async def _watch(self, http: httpx.AsyncClient, video: dict[str, Any]) -> dict[str, Any]:
        """Show the progress until the video has ended, and return it then."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(_words(video), total=100)
            async for latest in _changes(http, self._address(video["id"]), video):
                video = latest
                bar.update(task, completed=video["progress"], description=_words(video))
        return video


def _words(video: Mapping[str, Any]) -> str:
    return str(video["status"]).replace("_", " ")


def _naming(out: Path | None) -> Callable[[str, str], Path]:
    """Return the function that names the file by id and suffix. Raises `ClientError` before anything is paid for."""
    if out is None or out.is_dir():
        return lambda video_id, suffix: (out or Path()) / f"{video_id}.{suffix}"
    if not out.absolute().parent.is_dir():
        raise ClientError(f"{out} cannot be written: there is no directory {out.absolute().parent}")
    return lambda _id, _suffix: out


def _require_sendable(key: str, fields: Mapping[str, str]) -> None:
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


async def _changes(http: httpx.AsyncClient, url: str, video: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
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
            with (
                Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
                unfinished.open("wb") as file,
            ):
                task = bar.add_task("saving", total=total)
                async for chunk in response.aiter_bytes(2**20):
                    file.write(chunk)
                    bar.update(task, advance=len(chunk))
        unfinished.replace(target)
    except (httpx.HTTPError, OSError) as error:
        unfinished.unlink(missing_ok=True)
        raise ClientError(f"{target} could not be saved: {error}") from error
