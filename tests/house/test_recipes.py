"""The recipes of CONTRIBUTING, tried out: a provider is one file, one line, one fake; a dialect one file, one line, one
test file.

A throw-away one of each is added to a copy of the tree, and the contract suites of the copy run over both.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("app", "migrations", "tests", "tools", "pyproject.toml")
SUITES = {"providers": 80, "dialects": 15}
"""Least number of tests that each suite runs over one of them."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the provider `acme` and the dialect `acme`."""
    copy = tmp_path_factory.mktemp("recipes")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name)  # with its bytecode, whose times are those of the copied files
        else:
            shutil.copy(ROOT / name, copy / name)
    add_provider(copy)
    add_dialect(copy)
    return copy


def add_provider(copy: Path) -> None:
    """Another Lumen, under another name and other paths."""
    words = {"lumen": "acme", "Lumen": "Acme", "generations": "jobs"}
    imitate(copy / "app/providers/lumen.py", copy / "app/providers/acme.py", words)
    imitate(copy / "tests/fakes/lumen.py", copy / "tests/fakes/acme.py", words)
    registry = copy / "app/providers/__init__.py"
    text = registry.read_text("utf-8")
    text = text.replace("KINDS: tuple[type[Provider], ...] = (\n", "KINDS: tuple[type[Provider], ...] = (\n    Acme,\n")
    registry.write_text(
        text.replace(
            "from app.providers.apilaplas", "from app.providers.acme import Acme\nfrom app.providers.apilaplas", 1
        )
    )


def add_dialect(copy: Path) -> None:
    """Another Luma, with a webhook style and a model setting of its own."""
    words = {"luma": "acme", "Luma": "Acme", "LUMA": "ACME"}
    imitate(copy / "app/dialects/luma.py", copy / "app/dialects/acme.py", words)
    imitate(copy / "tests/dialects/test_luma.py", copy / "tests/dialects/test_acme.py", words)
    case = copy / "tests/dialects/test_acme.py"
    text = case.read_text("utf-8").replace("import ACME, ", "import ")
    case.write_text(text.replace("\nCASES", '\nACME = "/acme/generations"\n\nCASES', 1))
    registry = copy / "app/dialects/__init__.py"
    text = registry.read_text("utf-8").replace("import apilaplas, luma", "import acme, apilaplas, luma")
    registry.write_text(text.replace("= (lunos, ", "= (acme, lunos, "))


def imitate(source: Path, target: Path, words: dict[str, str]) -> None:
    text = source.read_text("utf-8")
    for old, new in words.items():
        text = text.replace(old, new)
    target.write_text(text)


def run(tree: Path, *command: str, **environment: str) -> str:
    """Run a command of this environment in the copy, whose modules it imports; returns its output."""
    settings = {"PYTHONPATH": str(tree), **environment}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-5_000:] + result.stderr[-5_000:]
    return result.stdout


def passed(output: str) -> int:
    found = re.search(r"(\d+) passed", output)
    assert found is not None, output
    return int(found[1])


def test_the_copy_is_imported(tree: Path) -> None:
    assert run(tree, "-c", "import app; print(app.__file__)").strip() == str(tree / "app/__init__.py")


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_the_contract_suites_find_a_new_provider_and_a_new_dialect(suite: str, tree: Path, postgres: str) -> None:
    files = sorted((tree / "tests/contract").glob("test_*.py"))
    chosen = [str(path) for path in files if (path.stem == "test_dialect_contract") == (suite == "dialects")]
    output = run(tree, "-m", "pytest", "-n", "0", *chosen, "-k", "acme", TEST_DATABASE_URL=postgres)
    assert passed(output) >= SUITES[suite]


@pytest.mark.slow
def test_a_new_dialect_brings_its_webhooks_and_its_settings(tree: Path, postgres: str) -> None:
    tests = ("tests/dialects/test_acme.py", "tests/webhooks/test_request_webhooks.py")
    output = run(tree, "-m", "pytest", "-n", "0", *tests, "-k", "acme", TEST_DATABASE_URL=postgres)
    assert passed(output) >= 3
    configure = "from app import dialects, settings; print(dialects.configure(settings.load())['acme'].model)"
    printed = run(tree, "-c", configure, GATEWAY_DIALECTS__ACME__MODEL="sandbox/slow")
    assert printed.strip() == "sandbox/slow"


def test_a_new_provider_and_a_new_dialect_keep_the_arrows(tree: Path) -> None:
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    run(tree, "-c", script)
