"""One writer per fact: the status of a video and the state of an attempt, deliveries, the ledger, the environment."""

from pathlib import Path

import pytest
from house.writers import LEDGER, MONEY_OF_AN_ATTEMPT, foreign_writes, ledger_columns

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for pattern in ("*.py", "*.sql") for path in (ROOT / "app").rglob(pattern))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_fact_has_one_writer() -> None:
    found = [line for path in SOURCES for line in foreign_writes(relative(path), path.read_text("utf-8"))]
    # The ledger settles attempts: that column, and no other, is written from outside the job machine.
    exempt = [line for line in found if line.startswith(LEDGER) and "table attempts" in line]
    assert [line for line in found if line not in exempt] == []
    assert exempt
    columns = ledger_columns((ROOT / LEDGER).read_text("utf-8"))
    assert columns == MONEY_OF_AN_ATTEMPT


PLANTED = {
    "status by attribute": ("app/http/create.py", "async def f(video):\n    video.status = 'failed'\n"),
    "state among others": ("app/admin/routes.py", "def f(a, b):\n    a.lease, a.state = None, b\n"),
    "state by setattr": ("app/accounts/keys.py", "def f(a):\n    setattr(a, 'state', 'failed')\n"),
    "state of an attempt from webhooks' sibling": ("app/providers/rest.py", "def f(a):\n    a.state = 'failed'\n"),
    "update of videos": (
        "app/http/wait.py",
        "def f(sa, Video):\n    sa.update(Video).values(status='failed')\n",
    ),
    "update of a table": ("app/media/store.py", "def f(Attempt):\n    return Attempt.__table__.update()\n"),
    "insert of a row": ("app/accounts/budgets.py", "def f(LedgerEntry):\n    return LedgerEntry(id='x')\n"),
    "insert into the ledger": ("app/accounts/budgets.py", "def f(insert, LedgerEntry):\n    insert(LedgerEntry)\n"),
    "delivery from the jobs": ("app/jobs/lifecycle.py", "def f(sa, Delivery):\n    sa.update(Delivery)\n"),
    "delete of videos": ("app/accounts/projects.py", "def f(sa, Video):\n    sa.delete(Video)\n"),
    "SQL text": ("app/http/health.py", "S = 'update videos set progress = 1'\n"),
    "SQL bytes": ("app/accounts/auth.py", "S = b'''\nwith x as (select 1)\nupdate attempts set due_at = now()\n'''\n"),
    "SQL insert": ("app/jobs/enqueue.py", "S = b'insert into ledger (id) values (1)'\n"),
    "SQL delete": ("app/cli/manage.py", "S = 'delete from deliveries'\n"),
    "SQL truncate": ("app/cli/manage.py", "S = 'truncate meters'\n"),
    "SQL with a table put in": ("app/cli/manage.py", "def f(t):\n    return f'delete from {t}'\n"),
    "SQL in pieces": ("app/cli/manage.py", "def f(t):\n    return 'update ' + t\n"),
    "SQL in a function": ("app/db/functions/count_jobs.sql", "begin\n  update videos set status = 'failed';\nend"),
    "environment": ("app/net/__init__.py", "import os\nP = os.environ['PROXY']\n"),
    "environment by name": ("app/net/__init__.py", "from os import getenv\n"),
    "HTTP client": ("app/providers/openai.py", "import httpx\nC = httpx.AsyncClient()\n"),
    "HTTP call": ("app/webhooks/sender.py", "import httpx\nhttpx.post('http://x')\n"),
    "HTTP client by name": ("app/webhooks/sender.py", "from httpx import AsyncClient\n"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_writer_is_found(planted: str) -> None:
    path, source = PLANTED[planted]
    assert len(foreign_writes(path, source)) == 1


def test_prose_and_reading_are_no_writes() -> None:
    source = '''
"""Docstrings may say update videos set, or insert into ledger."""
MESSAGE = "Copy the key. Update it later; delete from time to time."
QUERY = "select id from videos where id = %s for update skip locked"
UPSERT = "insert into request_rates as rate (key_id) values (1) on conflict (key_id) do update set spent = 1"
'''
    assert foreign_writes("app/accounts/auth.py", source) == []
