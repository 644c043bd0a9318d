"""Programs and packages of the tests that `make test` does not bring along: a test skips without them, and fails where
all are required, as in `.ci/run`."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

CLIENTS = Path(__file__).parent / "clients"
TOOLS_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""PATH with the commands of this environment first, `video-gateway` among them."""
PATIENCE_S = 300
"""Time limit of an installation on a busy machine."""


def missing(reason: str) -> NoReturn:
    """Skip the test, or the file that is imported; fail where all programs are required."""
    if os.environ.get("CI_TOOLS") == "required":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def need(*programs: str, path: str = TOOLS_PATH) -> str:
    """Return the path of the first of these programs, which are alternatives."""
    for program in programs:
        if found := shutil.which(program, path=path):
            return found
    missing(f"{programs[0]} is not installed")


def install(folder: Path) -> Path:
    """Install the packages of `tests/clients/package-lock.json` in this folder, once for all processes of a test run;
    returns `node_modules`."""
    need("node")
    npm = need("npm")
    folder.mkdir(exist_ok=True)
    failed = folder / "failed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists() and not failed.exists():
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(CLIENTS / name, folder)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                subprocess.run(
                    command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=PATIENCE_S
                )
                (folder / "installed").touch()
            except subprocess.CalledProcessError as error:
                failed.write_bytes(error.stderr[-500:])
            except subprocess.TimeoutExpired as error:
                failed.write_text(str(error))
    if failed.exists():
        missing(f"npm could not install the packages: {failed.read_text(errors='replace')}")
    return folder / "node_modules"
