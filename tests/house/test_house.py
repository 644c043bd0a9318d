"""Rules of the repository: documented settings, short modules, import directions, complete documents."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dialects import DIALECTS, create_paths, dialect_of, name_of
from app.jobs.enqueue import CREATE
from app.providers import KINDS
from app.settings import Settings, load
from benchmarks.baseline import create_parameters
from tools.docs import blocks, written

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
DECISIONS = ROOT / "docs" / "decisions"
NOT_SETTINGS = {"GATEWAY_CONFIG", "POSTGRES_PASSWORD"}
"""Variables that .env.example may name although no field of `Settings` reads them."""


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text("utf-8"), relative(path)))


def env_example() -> dict[str, str]:
    """Variable to the rest of its line, comment included."""
    lines = re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a variable stands in .env.example twice"
    return dict(lines)


def makefile() -> str:
    return (ROOT / "Makefile").read_text("utf-8")


def make_targets() -> set[str]:
    return set(re.findall(r"^\.PHONY: (.+)$", makefile(), re.MULTILINE)[0].split())


def read_as_dotenv(variables: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Uncomment these lines in an otherwise empty environment and let `Settings` read them."""
    for name in [name for name in os.environ if name.upper().startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    Path(".env").write_text("".join(f"{name}={rest}\n" for name, rest in variables.items()), "utf-8")
    return load()


# Settings


def test_env_example_names_every_setting_and_nothing_else() -> None:
    shown = {name for name in env_example() if not name.startswith(("GATEWAY_PROVIDERS__", "GATEWAY_DIALECTS__"))}
    real = {f"GATEWAY_{field.upper()}" for field in Settings.model_fields}
    assert shown - NOT_SETTINGS == real


def test_env_example_is_all_comment() -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_env_example_shows_the_real_default(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"GATEWAY_{field.upper()}"
    shown = read_as_dotenv({name: env_example()[name]}, tmp_path, monkeypatch)
    default = read_as_dotenv({}, tmp_path, monkeypatch)
    assert getattr(shown, field) == getattr(default, field)


def test_env_example_says_what_every_setting_is_for() -> None:
    example = env_example()
    fields = [f"GATEWAY_{field.upper()}" for field in Settings.model_fields]
    assert [name for name in fields if not re.search(r"\S  # \S", example[name])] == []


def test_provider_examples_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.providers import KINDS

    examples = {name: rest for name, rest in env_example().items() if name.startswith("GATEWAY_PROVIDERS__")}
    providers = read_as_dotenv(examples, tmp_path, monkeypatch).providers
    kinds = {kind.kind: kind for kind in KINDS}
    for name, values in providers.items():
        kind = kinds[values.get("kind", name)]
        kind.Config.model_validate({**values, "kind": kind.kind})
    assert len(providers) > 1


def test_dialect_examples_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {name: rest for name, rest in env_example().items() if name.startswith("GATEWAY_DIALECTS__")}
    from app.dialects import configure

    configs = configure(read_as_dotenv(examples, tmp_path, monkeypatch))
    assert {name: config.model_dump() for name, config in configs.items()} == {
        "luma": {"model": "gptge/luma", "hold_s": 55},
        "apilaplas": {"model": "apilaplas/ray-2", "hold_s": 25},
    }


# Code


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        relative(path)
        for path in modules("app", "tests", "benchmarks")
        if path.read_text("utf-8").strip() and ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None
    ]
    assert silent == []


def test_no_module_has_an_open_task_marker() -> None:
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    found = [
        f"{relative(path)}:{number}"
        for path in modules("app", "migrations", "tests", "benchmarks")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert found == []


# Documents


def test_every_decision_is_linked_numbered_and_complete() -> None:
    records = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    linked = re.findall(r"\]\((\d{4}-[^)]+\.md)\)", (DECISIONS / "README.md").read_text("utf-8"))
    assert linked == records
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    for name in records:
        text = (DECISIONS / name).read_text("utf-8")
        assert text.startswith(f"# {name[:4]} "), name
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], name


@pytest.mark.parametrize(("document", "name"), blocks())
def test_generated_parts_of_documents_are_up_to_date(document: str, name: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    assert written(text, name, blocks()[document, name]) == text, "run `make docs`"
    assert f"<!-- {name} -->" in text


def test_every_kind_and_dialect_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert {kind.kind for kind in KINDS} | {name_of(dialect) for dialect in DIALECTS} <= set(rows)
    for dialect in DIALECTS:
        assert create_paths(dialect)
        assert {dialect_of(path) for path in create_paths(dialect)} == {dialect}


@pytest.mark.parametrize("kind", [kind.kind for kind in KINDS])
def test_the_page_of_a_kind_has_a_part_by_hand(kind: str) -> None:
    """Below the generated head stands what the code cannot say."""
    _, _, by_hand = (ROOT / "docs" / "providers" / f"{kind}.md").read_text("utf-8").partition("<!-- /head -->")
    assert re.search(r"^## Good to know\n\n- \S", by_hand, re.MULTILINE)


def test_every_page_of_a_kind_belongs_to_one() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "providers").glob("*.md")} - {"README"}
    assert pages == {kind.kind for kind in KINDS}


def test_list_prices_have_the_date_of_reading() -> None:
    """The sandbox is free, whatever the date; fal's models are in a table of its own."""
    priced = {kind.kind for kind in KINDS if any(any(able.prices.values()) for able in kind.models.values())}
    assert priced | {"fal"} == {kind.kind for kind in KINDS if kind.prices_read is not None}


def test_each_page_answers_a_question_of_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_files_that_documents_name_exist() -> None:
    """Paths in running text, such as `app/jobs/claim.py`; globs and placeholders are left out."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    missing = [
        f"{relative(document)}: {name}"
        for document in documents
        if document.name != "CHANGELOG.md"
        for name in re.findall(
            r"`((?:app|tests|tools|docs|migrations|benchmarks)/[\w./-]+)`", document.read_text("utf-8")
        )
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_changelog_has_one_section_for_each_version() -> None:
    """Versions that are not released yet share the first one."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    headings = [
        re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (unreleased|\d{4}-\d\d-\d\d)", text.split("\n")[0]) for text in sections
    ]
    assert all(headings), "a heading is `## [X.Y.Z] - unreleased`, or has the day of the release"
    versions, days = zip(*(heading.groups() for heading in headings if heading), strict=True)
    assert version in versions
    assert len(set(versions)) == len(versions)
    assert "unreleased" not in days[1:]
    for text in sections:
        kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
        assert sorted(set(kinds)) == sorted(kinds)


def test_make_targets_explain_themselves() -> None:
    assert set(re.findall(r"^([a-z-]+):[^\n]*## \S", makefile(), re.MULTILINE)) == make_targets()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".ci/run", ".pre-commit-config.yaml"])
def test_documents_name_make_targets_that_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    if name.endswith(".md"):
        text = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    commands = re.findall(r"\bmake ((?:[a-z][a-z-]*\b(?!=) ?)+)", re.sub(r"^ *#.*$", "", text, flags=re.MULTILINE))
    assert commands
    assert {target for command in commands for target in command.split()} <= make_targets()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert re.search(r"\bmake test\b", (ROOT / "README.md").read_text("utf-8"))
    steps = re.findall(r"^ *step (make [a-z]+(?: [a-z]+)*)", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert steps == ["make lint type", "make test", "make test", "make wheel"]


def test_containers_are_given_longer_to_stop_than_a_worker_takes() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    grace = min(int(seconds) for seconds in re.findall(r"^ +stop_grace_period: (\d+)s$", compose, re.MULTILINE))
    assert grace > Settings.model_fields["shutdown_grace_s"].default


def test_the_benchmark_fills_in_the_statement_that_creates_a_job() -> None:
    named = set(re.findall(r"%\((\w+)\)s", CREATE.decode()))
    assert create_parameters("video_x", {"model": "sandbox/testcard"}).keys() == named
