"""The gateway that is fuzzed: a real server with an embedded database, and things in it that can be asked about."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx

from benchmarks.processes import Child, free_port

T = TypeVar("T")

ALICE, BOB, ADMIN = "sk-alice-0123456789", "sk-bob-0123456789", "adm-0123456789"
PATIENCE_S = 120
KEPT, DELETED = 3, 10
"""Numbers of videos and endpoints that are kept, and of those that are deleted."""

SETTINGS = {
    "GATEWAY_API_KEYS": f"{ALICE},{BOB}",
    "GATEWAY_ADMIN_KEY": ADMIN,
    "GATEWAY_LOG_FORMAT": "json",
    "GATEWAY_DEFAULT_MODEL": "sandbox/slow",
    "GATEWAY_PRICES": json.dumps({f"sandbox/{name}": 0.05 for name in ("testcard", "slow", "fail", "reject")}),
    "GATEWAY_PROVIDERS__SANDBOX__TESTCARD_S": "0",
    "GATEWAY_PROVIDERS__SANDBOX__SLOW_S": "3600",
    "GATEWAY_DIALECTS__APILAPLAS__HOLD_S": "0.5",
    "GATEWAY_DIALECTS__LUMA__HOLD_S": "0.5",
    "GATEWAY_ALLOW_NETWORKS": "127.0.0.0/8",
}


@dataclass(frozen=True)
class Served:
    """A gateway that listens; `settings` lead a command to its database."""

    url: str
    log: Path
    settings: dict[str, str]

    def client(self, key: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    port = free_port()
    settings = {**SETTINGS, "GATEWAY_PORT": str(port), "GATEWAY_DATA_DIR": str(folder / "data")}
    child = Child("server", folder, ["app.cli.main", "serve"], settings)
    try:
        url = f"http://127.0.0.1:{port}"
        child.wait_for(f"{url}/readyz")
        yield Served(url, child.log, settings)
    finally:
        child.stop()


def prepare(gateway: Served) -> dict[str, list[str]]:
    """Make things that exist; their ids by what `schemathesis.toml` calls them."""
    with gateway.client(ALICE) as alice, gateway.client(ADMIN) as admin:
        # They get the events of videos that end later; the gateway has no such path and answers 404.
        endpoints = [_endpoint(alice, f"{gateway.url}/receiver/{n}") for n in range(4)]
        running = [_video(alice, "slow") for _ in range(KEPT + DELETED)]
        ended = [_finished(alice, _video(alice, model)) for model in ("testcard", "fail") for _ in range(KEPT)]
        doomed = [_finished(alice, _video(alice, "testcard"))["id"] for _ in range(DELETED)]
        finished = [video for video in ended if video["output"]]
        link = urlsplit(finished[0]["output"]["url"])
        project = _made(admin, "/admin/v1/projects", name="fuzz")
        keys = [_made(admin, "/admin/v1/keys", name=f"fuzz {n}", project=project) for n in range(3)]
        seen = admin.get(f"/admin/v1/videos/{finished[0]['id']}").raise_for_status().json()
        deliveries = alice.get(f"/v1/videos/{finished[0]['id']}/deliveries").raise_for_status().json()["data"]
        return {
            "videos": [*(video["id"] for video in ended), *running[:KEPT]],
            "ended_videos": [video["id"] for video in ended],
            "deleted_videos": [*doomed, *running[KEPT:]],
            "endpoints": endpoints[:2],
            "deleted_endpoints": endpoints[2:],
            "used_endpoints": endpoints[:1],
            "deliveries": [entry["id"] for entry in deliveries if entry["webhook_endpoint_id"] == endpoints[0]],
            "projects": [project, str(seen["project"])],
            "keys": keys,
            "attempts": [attempt["id"] for attempt in seen["attempts"]],
            "linked_videos": [finished[0]["id"]],
            "expiries": parse_qs(link.query)["exp"],
            "signatures": parse_qs(link.query)["sig"],
            "receivers": [f"{gateway.url}/receiver/x"],
        }


def _made(client: httpx.Client, path: str, **fields: Any) -> str:
    return str(client.post(path, json=fields).raise_for_status().json()["id"])


def _endpoint(client: httpx.Client, url: str) -> str:
    types = ["video.completed", "video.failed"]
    return _made(client, "/v1/webhook_endpoints", name="fuzz", url=url, event_types=types)


def _video(client: httpx.Client, model: str) -> str:
    return _made(client, "/v1/videos", prompt="a paper boat", model=f"sandbox/{model}", seconds=1, size="320x180")


def _finished(client: httpx.Client, video_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        video: dict[str, Any] = client.get(f"/v1/videos/{video_id}?wait=10").raise_for_status().json()
        return video if video["status"] in ("completed", "failed") else None

    return _until(look)


def _until(look: Callable[[], T | None]) -> T:
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < give_up_at, "it does not get any further"
        time.sleep(0.1)
    return found
