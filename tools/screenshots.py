"""Pictures of every page of the console, in light, dark, and 390 pixels wide.

Starts a gateway of its own with the sandbox and a vendor that is not there, makes some videos, and takes the pictures
with Chromium. Those that the README shows are written to docs/images.

    python -m tools.screenshots [FOLDER]        (default: screenshots)
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from app.console.pages import MENU

ROOT = Path(__file__).resolve().parent.parent
README_IMAGES = {
    "playground-light": "playground.png",
    "videos-light": "library.png",
    "operator-providers-light": "providers.png",
}
"""Pictures of the README, by the name that they have among all."""
IMAGES = ROOT / "docs" / "images"
IN_README: Any = {"x": 0, "y": 0, "width": 1280, "height": 760}
"""The part of a page that the README shows."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ADMIN = "an-admin-key-for-screenshots-alone-0001"
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PATIENCE_S = 60
SETTINGS = """
[providers.sandbox]
slow_s = 600

[providers.away]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "not used"
models = ["clip-1"]

[models."house"]
routes = ["away/clip-1", "sandbox/testcard"]

[prices]
"sandbox/testcard" = 0.1
"sandbox/slow" = 0.2
"sandbox/fail" = 0.1
"away/clip-1" = 0.05
"""
ENDPOINT = {"name": "shop", "url": "https://shop.example.com/hooks", "event_types": ["video.completed", "video.failed"]}
VIDEOS = (
    ("sandbox/testcard", "A lighthouse in heavy rain, waves breaking on the rocks", 4, "shop"),
    ("house", "A paper boat drifts across a still pond at dawn", 5, "shop"),
    ("sandbox/testcard", "A ginger cat walks along a sunny garden wall", 3, "newsletter"),
    ("sandbox/fail", "A street at night, neon signs reflected in puddles", 4, "shop"),
    ("house", "A train crosses a viaduct in autumn fog", 6, "newsletter"),
    ("sandbox/slow", "Time-lapse of a city from dusk to dark", 8, "shop"),
)


@contextmanager
def running_gateway() -> Iterator[tuple[str, str]]:
    """Run a gateway in an empty directory; yields its address and its first key."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o711)  # PostgreSQL may run as another user
        folder = Path(scratch)
        (folder / "gateway.toml").write_text(SETTINGS)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment |= {"GATEWAY_ADMIN_KEY": ADMIN, "GATEWAY_PORT": "8199"}
        command = [str(Path(sys.executable).parent / "video-gateway"), "serve"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            try:
                url = "http://127.0.0.1:8199"
                _wait_for(url, folder / "log")
                yield url, (folder / "data" / "secrets" / "api-key").read_text().strip()
            finally:
                process.terminate()
                process.wait(PATIENCE_S)


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the gateway did not start: {log.read_text()[-2_000:]}")


def fill(url: str, key: str) -> list[str]:
    """Make videos, a project with a key, and a webhook endpoint; returns the ids of the videos."""
    client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_S)
    admin = httpx.Client(base_url=url, headers={"authorization": f"Bearer {ADMIN}"}, timeout=PATIENCE_S)
    _made(admin.post("/admin/v1/projects", json={"name": "web shop", "billing": "prepaid", "monthly_budget_usd": 100}))
    _made(admin.post("/admin/v1/keys", json={"name": "checkout", "project": "web shop", "requests_per_minute": 60}))
    _made(admin.post("/admin/v1/projects/web shop/credits", json={"amount_usd": 50, "reference": "invoice 17"}))
    _made(client.post("/v1/webhook_endpoints", json=ENDPOINT))
    ids = []
    for model, prompt, seconds, app in VIDEOS:
        body = {"model": model, "prompt": prompt, "seconds": seconds, "size": "1280x720", "user": "u-17"}
        ids.append(_made(client.post("/v1/videos", json=body, headers={"x-app-id": app}))["id"])
    for video_id in ids[:-1]:
        while client.get(f"/v1/videos/{video_id}").json()["status"] in ("queued", "in_progress"):
            time.sleep(0.5)
    return ids


def _made(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise SystemExit(f"{response.request.url}: {response.text}")
    found: dict[str, Any] = response.json()
    return found


def take(browser: Browser, url: str, key: str, paths: list[str], folder: Path, prefix: str = "") -> None:
    """Take the pictures of these pages as one holder sees them."""
    for scheme, viewport, suffix in (("light", WIDE, "light"), ("dark", WIDE, "dark"), ("light", NARROW, "390")):
        context = browser.new_context(color_scheme=scheme, viewport=viewport)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{url}/console/login")
        page.fill("#key", key)
        page.click("button.main")
        page.locator("header nav").wait_for()
        for path in paths:
            page.goto(f"{url}/console/{path}")
            _settle(page)
            name = f"{prefix}{re.sub(r'[/?=]', '-', re.sub('video_[a-z0-9]+', 'video', path))}-{suffix}"
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            if name in README_IMAGES:
                page.screenshot(path=IMAGES / README_IMAGES[name], clip=IN_README)
        context.close()


def _settle(page: Page) -> None:
    """Wait for the pictures of a page."""
    page.wait_for_load_state("load")
    for picture in page.locator("img:visible").all():
        picture.scroll_into_view_if_needed()
    page.wait_for_timeout(300)


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")
    for one in (folder, IMAGES):
        one.mkdir(parents=True, exist_ok=True)
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        raise SystemExit("chromium is not installed; install it, as with `apt-get install chromium`")
    with running_gateway() as (url, key), sync_playwright() as playwright:
        ids = fill(url, key)
        browser = playwright.chromium.launch(executable_path=program)
        videos = [f"videos/{ids[1]}", f"videos/{ids[3]}"]
        print("taking pictures of the pages of a key's holder", flush=True)
        own = [path for path, _ in MENU[False]] + ["videos?view=table", "webhooks/log", "models/house", videos[0]]
        take(browser, url, key, own, folder)
        print("taking pictures of the operator's pages", flush=True)
        take(browser, url, ADMIN, [*(path for path, _ in MENU[True]), videos[1]], folder, "operator-")
        browser.close()
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}, three of them in docs/images")


if __name__ == "__main__":
    main()
