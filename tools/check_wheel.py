"""Checks the package as users install it: without the lock file, with the newest releases that its bounds allow.

Builds the wheel, installs it with its extras into an empty environment, runs `video-gateway
--version`, runs `serve` until /readyz answers, and runs the contract tests of dialects and a test that measures a file
against the installed package.

    python -m tools.check_wheel
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "embedded,ffmpeg,otel,vertex"
TEST_TOOLS = ("anyio", "asgi-lifespan", "jsonschema", "psutil", "pytest", "pytest-timeout", "pytest-xdist")
TESTS = (
    "tests/contract/test_dialect_contract.py",
    "tests/media/test_measure.py::test_a_track_with_one_absurd_number_is_measured",
)
READY_S = 60


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="video-gateway-wheel-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the embedded PostgreSQL may run as another user
        venv.create(folder / "env", with_pip=True)
        programs = folder / "env" / "bin"
        install(programs, build(programs, folder))
        check_version(programs)
        check_serve(programs, folder / "run")
        check_tests(programs)
    print(f"the wheel works ({time.monotonic() - started:.0f} s)")


def build(programs: Path, folder: Path) -> Path:
    """Build the wheel; returns its path."""
    pip(programs, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(programs: Path, wheel: Path) -> None:
    """Install the wheel with its extras, without the lock, and print the versions of what matters."""
    pip(programs, "install", f"video-gateway[{EXTRAS}] @ {wheel.as_uri()}", *TEST_TOOLS)
    for package in ("fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic"):
        show = f"from importlib.metadata import version; print('{package}', version('{package}'))"
        run(programs / "python", "-c", show)


def check_version(programs: Path) -> None:
    """`video-gateway --version` prints the version of pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    command = [str(programs / "video-gateway"), "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if printed != f"video-gateway {version}":
        raise SystemExit(f"video-gateway --version printed {printed!r}")


def check_serve(programs: Path, folder: Path) -> None:
    """`serve` starts with its own database in an empty directory, /readyz answers 200, /docs has its files."""
    folder.mkdir(mode=0o711)
    server = subprocess.Popen(
        [programs / "video-gateway", "serve", "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + READY_S
        assert server.stderr is not None
        for line in server.stderr:
            found = re.search(r'"url": "(http://[^"]+)"', line)
            if found:
                with urllib.request.urlopen(f"{found[1]}/readyz", timeout=10) as response:
                    print(f"/readyz {response.status} {response.read().decode()}")
                with urllib.request.urlopen(f"{found[1]}/docs/swagger-ui-bundle.js", timeout=10) as response:
                    print(f"/docs/swagger-ui-bundle.js {response.status} {len(response.read())} bytes")
                return
            if time.monotonic() > deadline:
                break
        raise SystemExit("serve did not become ready")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def check_tests(programs: Path) -> None:
    """The tests pass against the installed package, which is imported although the sources lie beside it."""
    imported = subprocess.run(
        [programs / "python", "-P", "-c", "import app; print(app.__file__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if Path(imported).is_relative_to(ROOT):
        raise SystemExit(f"the sources were imported instead of the package: {imported}")
    run(programs / "pytest", "-n", "2", "-W", "default", *TESTS, cwd=ROOT)


def pip(programs: Path, *arguments: str | Path) -> None:
    run(programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    result = subprocess.run([str(part) for part in command], cwd=cwd, check=False)
    if result.returncode:
        raise SystemExit(f"failed: {' '.join(str(part) for part in command)}")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text stream when run as a program
    main()
