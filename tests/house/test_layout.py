"""The layout of docs/decisions/0022: its packages, short files and functions, arrows that point one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.docs import DATA, PACKAGES

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
MAX_MODULES_BESIDE = 10
MAX_LINES = {"app": 450, "tests": 600}
MAX_FUNCTION_LINES = 60


def folders(path: Path) -> list[Path]:
    return sorted(inner for inner in path.iterdir() if inner.is_dir() and inner.name != "__pycache__")


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of each function of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_app_is_its_packages_and_a_few_modules() -> None:
    assert {path.name for path in folders(APP)} == set(PACKAGES)
    assert len([path for path in APP.glob("*.py") if path.stem != "__init__"]) <= MAX_MODULES_BESIDE


def test_nothing_is_deeper_than_three_levels() -> None:
    """A package may have packages in it, such as `dialects/openai`, and folders of data; those have none."""
    for package in folders(APP):
        for inner in folders(package):
            assert (inner / "__init__.py").exists() or inner.name in DATA, inner
            assert folders(inner) == []


def test_no_file_is_too_long() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder, limit in MAX_LINES.items()
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > limit
    }
    assert long == {}


def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(ROOT).as_posix()} {name}": lines
        for path in APP.rglob("*.py")
        for name, lines in functions(path)
        if lines > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_arrows_point_one_way() -> None:
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
