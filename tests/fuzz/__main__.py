"""`make fuzz`: start a gateway, let schemathesis loose on it, and see whether it is in order afterwards.

Two runs: with a user's key at the dialects, with the admin key at the administration API. What schemathesis finds it
prints, with a curl line each. Beyond that the server's log has to be free of faults, and the money has to add up.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.processes import ROOT
from fuzz import aftermath
from fuzz.gateway import ADMIN, ALICE, BOB, Served, prepare, served

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 40

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    max_examples: Annotated[int, typer.Option(min=1, help="How many requests to make up for each call.")] = EXAMPLES,
    seed: Annotated[int | None, typer.Option(help="The seed of an earlier run, for the same requests again.")] = None,
) -> None:
    """Fuzz every call of the API for about seven minutes; exits with 1 when anything was found."""
    seed = random.randrange(2**32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="gateway-fuzz-"))
    folder.chmod(0o711)  # the embedded database may run as another user
    problems = list(_problems(folder, ["--max-examples", str(max_examples), "--seed", str(seed)]))
    print(f'\nThe same requests again: make fuzz ARGS="--max-examples {max_examples} --seed {seed}"')
    if not problems:
        shutil.rmtree(folder)
        return
    shutil.rmtree(folder / "data")
    print(*problems, f"The server's log: {folder / 'server.log'}", sep="\n")
    raise typer.Exit(1)


def _problems(folder: Path, options: list[str]) -> Iterator[str]:
    with served(folder) as gateway:
        print(f"{gateway.url} is under fire; its log is {gateway.log}", flush=True)
        for name, ids in prepare(gateway).items():
            (folder / name).write_text("".join(f'"{value}"\n' for value in ids))
        shutil.copy(CONFIG, folder)
        if not _run(gateway, folder, ["--exclude-path-regex", "^/admin/", *options], key=ALICE, stranger=BOB):
            yield "Something was found with the key of a user, see above."
        if not _run(gateway, folder, ["--include-path-regex", "^/admin/", *options], key=ADMIN, stranger=ALICE):
            yield "Something was found with the admin key, see above."
        aftermath.show_depth(gateway)
        yield from aftermath.of_money(gateway)
    yield from aftermath.of_log(gateway.log)


def _run(gateway: Served, folder: Path, options: list[str], *, key: str, stranger: str) -> bool:
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return not subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", *options),
            *("--suppress-health-check", "filter_too_much"),  # there are parameters for which nothing is wrong
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "FUZZ_STRANGER": stranger},
        check=False,
    ).returncode


if __name__ == "__main__":
    cli()
