"""Plain words: docstrings open with a noun phrase or an imperative, and coined words are not used."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("app", "benchmarks", "tests", "tools")
COINED = "somebody|nobody|everybody|hears|told|film|films|door|doors|bell|courier|lane|strikes"
WORDS = re.compile(rf"(?<![a-zA-Z])({COINED})(?![a-zA-Z])", re.IGNORECASE)
QUESTIONS = re.compile(r"(What|How|Who|Whose|Where|Whether|Why)\b")
LOGGED = re.compile(r"\blog\.(debug|info|warning|error|exception)\(\s*(\S)")
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile", "Dockerfile", "docker-compose.yml"),
    *(".env.example", "benchmarks/README.md"),
)
EXEMPT = {"tests/house/test_words.py", "docs/glossary.md", "tests/db/test_schema.py"}
"""Files that list the words, and the test that fills a database of an older schema. Quotations stand in backticks."""


def files() -> Iterator[Path]:
    for folder in CODE:
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from sorted((ROOT / "app").rglob("*.sql"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from (ROOT / name for name in DOCUMENTS)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def coined(text: str) -> list[str]:
    return [match[0] for match in WORDS.finditer(re.sub(r"`[^`]*`", "", text))]


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, those below attributes too."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    yield statement.lineno, text


@pytest.mark.parametrize("path", [path for path in files() if relative(path) not in EXEMPT], ids=relative)
def test_coined_words_are_not_used(path: Path) -> None:
    found = [
        f"{relative(path)}:{number}: {word}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for word in coined(line)
    ]
    assert found == []


def test_docstrings_do_not_open_with_a_question_word() -> None:
    found = [
        f"{relative(path)}:{line}: {text.strip().splitlines()[0]}"
        for path in files()
        if path.suffix == ".py"
        for line, text in docstrings(path.read_text("utf-8"))
        if QUESTIONS.match(text.strip())
    ]
    assert found == []


def test_log_messages_are_constant() -> None:
    """A message can be searched for: what varies is in the fields."""
    found = [
        f"{relative(path)}: log.{level}({first}"
        for path in sorted((ROOT / "app").rglob("*.py"))
        for level, first in LOGGED.findall(without_comments(path.read_text("utf-8")))
        if first != '"'
    ]
    assert found == []


def without_comments(source: str) -> str:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return tokenize.untokenize(token for token in tokens if token.type != tokenize.COMMENT)


@pytest.mark.parametrize("text", ["a film", "FILM_TYPES", "told", "Nobody knows", "the door's", "by_strikes"])
def test_a_planted_word_is_found(text: str) -> None:
    assert coined(text)


@pytest.mark.parametrize("text", ["outdoors", "filmed material is video", "`attempts.strikes`", "stold", "bellow"])
def test_other_words_are_not(text: str) -> None:
    assert not coined(text)
