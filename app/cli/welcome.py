"""First words of a server that is ready: the next steps for a person at a terminal, one line of facts for a log."""

import shlex
from collections.abc import Mapping

from app import providers, settings
from app.accounts import secrets
from app.cli.console_link import address_of
from app.cli.manage import this_command
from app.db.address import read_address
from app.jobs.presence import RELEASE
from app.media.store import directory_of
from app.providers.base import Provider
from app.settings import Settings
from app.telemetry import logs


def greet(
    config: Settings, port: int, upstreams: Mapping[str, Provider], *, has_keys: bool, code: str | None = None
) -> None:
    """Print the next steps, or log `started` where no person reads along. `code` signs a browser in to the console."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104  # shown, not listened on
    url = config.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if logs.is_console(config):
        _welcome(config, url, port, has_keys=has_keys, code=code)
        return
    unused = providers.unused_routes(config, upstreams, providers.KIND_NAMES)
    left_out = [alias for alias, routes in unused.items() if len(routes) == len(config.models[alias].routes)]
    more = {"worker": config.run_worker, "aliases_left_out": sorted(left_out)}
    if config.database_url is None and not config.static_keys:
        more["api_key_file"] = str(secrets.first_key(config)[1])
    logs.log.info("started", url=url, **facts(config, upstreams), **more)


def facts(config: Settings, upstreams: Mapping[str, Provider]) -> dict[str, object]:
    """Facts of a process for the log line of its start; no secrets."""
    database, store = config.database_url, config.storage_url
    return {
        "version": RELEASE,
        "database": "embedded" if database is None else str(read_address(database.get_secret_value())),
        "store": store or f"file://{directory_of(config)}",
        "providers": list(upstreams),
        "config_files": settings.files(),
    }


def _welcome(config: Settings, url: str, port: int, *, has_keys: bool, code: str | None) -> None:
    print(f"\nvideo-gateway is ready at {url}/v1   (documentation: {url}/docs)")
    key, message = _key_to_show(config, has_keys=has_keys)
    print(message)
    if code is not None:
        print(f"Console: {address_of(url, code)}   (works once, for ten minutes)")
    elif config.console:
        print(f"Console: {url}/console")
    if not config.run_worker:
        print("No worker runs here: start `video-gateway worker`.\n\nCtrl-C stops the server.\n", flush=True)
        return
    elsewhere = "" if config.public_url or port == settings.load().port else f" --url {url}/v1"
    print(
        f"\nTry it in another terminal:\n"
        f'  curl {url}/v1/videos -H "Authorization: Bearer {key}" \\\n'
        f"    -F prompt='a paper boat on a pond' -F model=sandbox/testcard -F seconds=4\n"
        f"or create a video, watch its progress and save the file:\n"
        f"  {this_command()} generate 'a paper boat on a pond'{elsewhere}\n\n"
        f"Ctrl-C stops the server.\n",
        flush=True,
    )


def _key_to_show(config: Settings, *, has_keys: bool) -> tuple[str, str]:
    """The key for an example, and a line about keys. The key itself is printed only if the gateway created both the key
    and the database: on a developer's machine, not in a production log."""
    if config.static_keys:
        return "$API_KEY", "API keys: those in GATEWAY_API_KEYS, and those created with `video-gateway keys create`"
    if config.database_url is None:
        key, path = secrets.first_key(config)
        return key, f"API key: {key}   (kept in {path})"
    if secrets.existing_key(config) is not None:
        path = secrets.first_key(config)[1]
        return f"$(cat {shlex.quote(str(path))})", f"API key: in {path}"
    if has_keys:
        return "$API_KEY", "API keys: those created with `video-gateway keys create`"
    return "$API_KEY", f"No API key yet: {this_command()} keys create NAME"
