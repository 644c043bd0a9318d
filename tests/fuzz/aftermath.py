"""Conditions after a run: no fault in the server's log, and money that adds up."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from benchmarks.processes import ROOT
from fuzz.gateway import ADMIN, ALICE, Served

SHOWN, LOOKS = 10, 3
"""Lines of the log that are printed; how often the money of a video that moves is looked at."""


def of_log(log: Path) -> Iterator[str]:
    """Lines that tell of a fault: errors, tracebacks, answers of 500 and above."""
    with log.open(errors="replace") as lines:
        found = list(islice((line for line in lines if _is_fault(line)), SHOWN))
    yield from (f"In the server's log: {line.strip()[:2_000]}" for line in found)


def _is_fault(line: str) -> bool:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return bool(re.search(r"Traceback|Exception|Error", line))
    return entry.get("level") in ("error", "critical") or "exception" in entry or entry.get("status") in range(500, 600)


def of_money(gateway: Served) -> Iterator[str]:
    """Videos whose entries in the ledger are not what they cost and what is held for them; reports that fail."""
    with gateway.client(ADMIN) as admin:
        for path in ("/admin/v1/projects", "/admin/v1/usage?by=project,key,model,app,user,day", "/admin/v1/repairs"):
            answer = admin.get(path)
            if answer.status_code != 200:
                yield f"GET {path} answers {answer.status_code}: {answer.text[:200]}"
        videos = {entry["video_id"] for entry in _entries(admin) if entry["video_id"]}
        print(f"{len(videos)} videos have money in the ledger")
        yield from (f"The ledger does not add up for {video}" for video in videos if not _adds_up(admin, video))
    command = [sys.executable, "-m", "app.cli.main", "usage", "--by", "project,app,user"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **gateway.settings}
    ran = subprocess.run(command, cwd=gateway.log.parent, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        yield f"`video-gateway usage` ends with {ran.returncode}: {ran.stderr[-2_000:]}"


def _entries(admin: httpx.Client) -> Iterator[dict[str, Any]]:
    after: dict[str, str] = {}
    more = True
    while more:
        page = admin.get("/admin/v1/ledger", params={"limit": 1_000, **after}).raise_for_status().json()
        yield from page["data"]
        more = page["has_more"]
        after = {"after": page["data"][-1]["id"]} if more else {}


def _adds_up(admin: httpx.Client, video_id: str) -> bool:
    """True for a video that was deleted meanwhile; one that moves is looked at again."""
    for _ in range(LOOKS):
        entries = admin.get("/admin/v1/ledger", params={"video": video_id}).raise_for_status().json()["data"]
        answer = admin.get(f"/admin/v1/videos/{video_id}")
        if answer.status_code == 404:
            return True
        video = answer.raise_for_status().json()
        held = sum(attempt["settlement"] == "held" for attempt in video["attempts"])
        owed = (video["cost_micros"] or 0) + (video["hold_micros"] or 0) * held
        if sum(entry["amount_micros"] or 0 for entry in entries) == -owed:
            return True
        time.sleep(0.5)
    return False


def show_depth(gateway: Served) -> None:
    """Say which calls never did what they are for, so that a run that only ever knocks is seen to do so."""
    with gateway.client(ALICE) as client:
        metrics = client.get("/metrics").text
        paths = client.get("/openapi.json").json()["paths"]
    counted = re.findall(r'_duration_seconds_count\{method="(\w+)",route="(.+)",status="[23]\d\d"\} (\d+)', metrics)
    good = {(method, re.sub(r":\w+}", "}", route)): int(count) for method, route, count in counted}
    calls = [(method.upper(), path) for path, operations in paths.items() for method in operations]
    never = [" ".join(call) for call in calls if call not in good]
    print(f"{sum(good.values())} answers were a success; none of", *never, sep="\n  ")
