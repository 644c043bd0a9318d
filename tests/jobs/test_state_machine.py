"""Jobs in any order of events: creates, cancels, faults of two upstreams, workers that die in the middle of a call, an
operator who decides, clocks that jump, limits that change. After every step the ledger adds up; at the end every job
has ended, nothing is held, and no output was bought twice.
"""

import asyncio
import gc
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from asgi_lifespan import LifespanManager
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Fault, Hang, Reset, sample_mp4, serve
from harness import ALICE, ORIGIN, Clock, Running, another_worker, scratch_database, sqlalchemy_url
from hypothesis import HealthCheck, note, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from money import ADMIN, Operator

from app import settings as configuration
from app.db.migrate import upgrade_schema
from app.jobs.worker import Worker
from app.main import create_app

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "7"))
STEPS = int(os.environ.get("FUZZ_STEPS", "25"))

REFUSALS = [
    (400, "invalid_prompt"),
    (402, "insufficient_quota"),
    (429, "rate_limit_exceeded"),
    (401, "invalid_api_key"),
]
FAULTS: dict[str, list[Fault]] = {
    "submit": [Answer(500), Answer(503, {"error": {"message": "busy"}}), Reset(accepted=True), Reset(accepted=False)],
    "poll": [Answer(500), Answer(429), Answer(404), Answer(200, "nonsense"), Reset()],
    "content": [Answer(500), Answer(404), Reset()],
    "cancel": [Answer(405), Answer(500), Reset()],
}
UPSTREAMS = ("plain", "keyed")
MODELS = ("plain/sora-2", "keyed/sora-2", "clip")
ENDED = ("completed", "failed")


@cache
def _lying_mp4() -> bytes:
    """A quarter of a second whose header claims 4,294,000 seconds."""
    data = bytearray(sample_mp4())
    at = data.find(b"mvhd") + 4
    scale = struct.unpack_from(">I", data, at + 12)[0]
    struct.pack_into(">I", data, at + 16, min(2**32 - 2, 4_294_000 * scale))
    return bytes(data)


FILES: dict[str, Callable[[], bytes]] = {
    "short": sample_mp4,
    "long": lambda: sample_mp4(30),
    "liar": _lying_mp4,
    "no video": lambda: b"\0\1\2\3" * 64,
}
"""Files that an upstream sends for any request."""

METERS = sa.text("""
select meters.scope, meters.spent_micros, booked.spent from meters
left join keys on keys.id = meters.scope left join projects on 'project:' || projects.id = meters.scope
cross join lateral (
  select - coalesce(sum(amount_micros), 0)::bigint as spent from ledger
  where (ledger.key_id = keys.id or ledger.project_id = projects.id) and kind <> 'credit'
    and date_trunc('month', day) = meters.month
) as booked
where meters.month > '0001-01-01' and meters.spent_micros <> booked.spent
  and coalesce(keys.monthly_budget_micros, projects.monthly_budget_micros) is not null
""")


def machine_on(server: str) -> type[RuleBasedStateMachine]:
    """The machine, on databases of this server: a class, since Hypothesis makes its instances."""

    class Jobs(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.made: dict[str, dict[str, Any]] = {}
            self.resubmitted: Counter[str] = Counter()
            self.number = 0

        def run(self, coroutine: Any) -> Any:
            return self.runner.run(coroutine)

        # Setting up and ending

        @initialize()
        def start(self) -> None:
            self.run(self._start())

        async def _start(self) -> None:
            self.stack = AsyncExitStack()
            enter = self.stack.enter_async_context
            url = await enter(scratch_database(server))
            await upgrade_schema(sqlalchemy_url(url))
            self.fakes = {"plain": FakeOpenAI(), "keyed": FakeOpenAI()}
            providers = {}
            self.origins = {name: await enter(serve(fake)) for name, fake in self.fakes.items()}
            for name, origin in self.origins.items():
                providers[name] = {"kind": "openai", "base_url": f"{origin}/v1", "api_key": KEY}
            providers["keyed"]["idempotency"] = "header"
            values: dict[str, Any] = {
                "database_url": url,
                "data_dir": await enter(_directory()),
                "api_keys": [ALICE],
                "admin_key": ADMIN,
                "pepper": "a pepper of the tests",
                "run_worker": False,
                "allow_networks": ["127.0.0.0/8"],
                "providers": providers,
                "prices": {"plain/sora-2": 0.1, "keyed/sora-2": 0.2},
                "models": {"clip": {"routes": ["plain/sora-2", "keyed/sora-2"]}},
                "job_deadline_s": 3_600,
                "late_watch_s": 7_200,
            }
            self.clock = Clock()
            app = create_app(configuration.load(_env_file=None, **values), clock=self.clock)
            manager = await enter(LifespanManager(app, startup_timeout=60, shutdown_timeout=60))
            transport = httpx.ASGITransport(manager.app)

            async def client(key: str) -> httpx.AsyncClient:
                headers = {"authorization": f"Bearer {key}"}
                return await enter(httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers))

            self.gateway = Running(app, self.clock, await client(ALICE), await client(ALICE))
            self.operator = Operator(self.gateway, await client(ADMIN))
            limited = await self.operator.key("limited", monthly_budget_usd=3, concurrent_jobs=4)
            self.limited_id = limited["id"]
            self.clients = {"free": self.gateway.client, "limited": await client(limited["key"])}
            self.worker: Worker = self.gateway.worker

        def teardown(self) -> None:
            if hasattr(self, "operator"):
                try:
                    self.run(self._drain())
                finally:
                    self.run(self.stack.aclose())
            self.runner.close()

        async def _drain(self) -> None:
            """Let everything end, and look at what is left."""
            for fake in self.fakes.values():
                for faults in fake._script.values():
                    faults.clear()
            for _ in range(40):
                await self.worker.run_once()
                self.clock.advance(600)
                repairs = (await self.operator.ask("GET", "repairs"))["data"]
                for repair in [repair for repair in repairs if "fail" in repair["actions"]]:
                    await self.operator.ask("POST", f"repairs/{repair['id']}", action="fail")
            await self.operator.check_sums()
            async with self.gateway.gateway.db.reading() as connection:
                rows = (await connection.execute(sa.text("select * from videos"))).mappings().all()
                live = await connection.scalar(sa.text("select count(*) from attempts where settlement = 'held'"))
                sums = await connection.scalar(sa.text("select coalesce(sum(amount_micros), 0) from ledger"))
                cost = await connection.scalar(
                    sa.text("select coalesce(sum(cost_micros), 0) from ledger where kind = 'settle'")
                )
            assert {row["status"] for row in rows} <= set(ENDED), "every job ends"
            assert {row["settlement"] for row in rows} <= {"settled", "refunded"}
            assert live == 0
            for video in [row for row in rows if row["status"] == "completed" and row["deleted_at"] is None]:
                client = self.clients[self.made[video["id"]]["who"]]
                answer = await client.get(f"/v1/videos/{video['id']}/content")
                assert answer.status_code == 200, "the file is kept as long as its video"
            assert sums == -cost, "what is booked is what it cost"
            self._nothing_was_bought_twice()

        def _nothing_was_bought_twice(self) -> None:
            bought: Counter[str] = Counter()
            for fake in self.fakes.values():
                for call in fake.submits:
                    bought[call.fields["prompt"]] += 0
                bought.update(job.asked["prompt"] for job in fake.jobs.values())
            for prompt, tasks in bought.items():
                made = next(made for made in self.made.values() if made["prompt"] == prompt)
                assert tasks <= made["n"] + self.resubmitted[made["id"]], f"{prompt} was bought {tasks} times"

        # What clients do

        @rule(
            who=st.sampled_from(["free", "limited"]),
            model=st.sampled_from(MODELS),
            n=st.sampled_from([1, 1, 2]),
            seconds=st.sampled_from(["4", "4", "1", None]),
            repeat=st.booleans(),
        )
        def create(self, who: str, model: str, n: int, seconds: str | None, repeat: bool) -> None:
            self.number += 1
            body = {"prompt": f"clip {self.number}", "model": model, "seconds": seconds, "n": n}
            headers = {"idempotency-key": f"key {self.number}"}
            answers = [
                self.run(self.clients[who].post("/v1/videos", json=body, headers=headers))
                for _ in range(2 if repeat else 1)
            ]
            first = answers[0]
            assert first.status_code == 202 or (who == "limited" and first.status_code in (402, 429)), first.text
            for again in answers[1:]:
                assert again.status_code == (200 if first.status_code == 202 else first.status_code), again.text
            if first.status_code == 202:
                self.made[first.json()["id"]] = {**body, "who": who, "id": first.json()["id"]}
            note(f"{body['prompt']}: {first.status_code}")

        @precondition(lambda self: self.made)
        @rule(which=st.integers(0, 1_000))
        def delete(self, which: int) -> None:
            made = self._one(which)
            answer = self.run(self.clients[made["who"]].delete(f"/v1/videos/{made['id']}"))
            assert answer.status_code in (200, 404), answer.text

        @precondition(lambda self: self.made)
        @rule(which=st.integers(0, 1_000))
        def look(self, which: int) -> None:
            made = self._one(which)
            answer = self.run(self.clients[made["who"]].get(f"/v1/videos/{made['id']}"))
            assert answer.status_code in (200, 404), answer.text

        def _one(self, which: int) -> dict[str, Any]:
            return list(self.made.values())[which % len(self.made)]

        # What the world does

        @rule(seconds=st.sampled_from([1, 20, 20, 20, 120, 4_000, -30, -7_200]))
        def time_passes(self, seconds: int) -> None:
            self.clock.advance(seconds)

        @rule()
        def work(self) -> None:
            self.run(self.worker.run_once())

        @rule(upstream=st.sampled_from(UPSTREAMS), fault=st.sampled_from([(v, f) for v in FAULTS for f in FAULTS[v]]))
        def upstream_will_err(self, upstream: str, fault: tuple[str, Fault]) -> None:
            self.fakes[upstream].script(*fault)

        @rule(upstream=st.sampled_from(UPSTREAMS), refusal=st.sampled_from(REFUSALS))
        def upstream_will_refuse(self, upstream: str, refusal: tuple[int, str]) -> None:
            fake = self.fakes[upstream]
            fake.script("submit", fake.refusal(refusal[0], "no", refusal[1]))

        @rule(upstream=st.sampled_from(UPSTREAMS))
        def upstream_has_no_file(self, upstream: str) -> None:
            self.fakes[upstream].script("content", *[Answer(404)] * 3)

        @rule(upstream=st.sampled_from(UPSTREAMS), which=st.integers(0, 1_000), well=st.booleans())
        def upstream_ends_a_task(self, upstream: str, which: int, well: bool) -> None:
            fake = self.fakes[upstream]
            if fake.jobs:
                ref = list(fake.jobs)[which % len(fake.jobs)]
                if fake.jobs[ref].status in ("queued", "in_progress"):
                    fake.finish(ref) if well else fake.fail(ref, "server_error", "no GPU")

        @rule(upstream=st.sampled_from(UPSTREAMS), file=st.sampled_from(["short", "long", "liar", "no video"]))
        def upstream_will_send(self, upstream: str, file: str) -> None:
            self.fakes[upstream].file = FILES[file]()

        @rule(upstream=st.sampled_from(UPSTREAMS), verb=st.sampled_from(["submit", "poll", "content", "cancel"]))
        def a_worker_dies_in_the_middle_of(self, upstream: str, verb: str) -> None:
            self.run(self._die(self.fakes[upstream], verb))

        async def _die(self, fake: FakeOpenAI, verb: str) -> None:
            hang = Hang()
            fake.script(verb, hang)
            dying = asyncio.create_task(self.worker.run_once())
            reached = asyncio.create_task(hang.reached.wait())
            await asyncio.wait({dying, reached}, return_when=asyncio.FIRST_COMPLETED)
            if dying.done():  # nothing of that kind was due; the next call gets a 504
                hang.release.set()
                reached.cancel()
                await dying
                return
            note(f"died in {verb}")
            dying.cancel()
            tasks = [t for t in asyncio.all_tasks() if getattr(t.get_coro(), "__qualname__", "") == "Executor.run"]
            assert tasks, "a step is under way"
            for task in [dying, *tasks]:
                task.cancel()
            await asyncio.gather(dying, *tasks, return_exceptions=True)
            hang.release.set()
            async with another_worker(self.gateway) as fresh:
                self.worker = fresh

        # What the operator does

        @rule(
            action=st.sampled_from(["find", "resubmit", "fail", "fetch"]),
            which=st.integers(0, 1_000),
            wrong_name=st.booleans(),
        )
        def operator_decides(self, action: str, which: int, wrong_name: bool) -> None:
            self.run(self._decide(action, which, wrong_name))

        async def _decide(self, action: str, which: int, wrong_name: bool) -> None:
            repairs = (await self.operator.ask("GET", "repairs"))["data"]
            if not repairs:
                return
            repair = repairs[which % len(repairs)]
            body = {"action": action}
            if action == "find":
                jobs = self.fakes[repair["provider"]].jobs.values()
                theirs = [job.ref for job in jobs if job.asked["prompt"] == repair["prompt"]]
                used = await self._refs()
                free = [ref for ref in theirs if (repair["provider"], ref) not in used]
                body["upstream_ref"] = "video_999" if wrong_name or not free else free[0]
            if action == "fetch":
                name = "none" if wrong_name else f"{repair['upstream_ref']}/content"
                body["url"] = f"{self.origins[repair['provider']]}/v1/videos/{name}"
            answer = await self.operator.client.post(f"/admin/v1/repairs/{repair['id']}", json=body)
            refused = (400, 409, 502, 503) if action in repair["actions"] else (404, 409)
            assert answer.status_code in refused or (answer.status_code == 200 and action in repair["actions"]), (
                answer.text
            )
            note(f"{action} of {repair['prompt']}: {answer.status_code}")
            if answer.status_code == 200 and action == "resubmit":
                self.resubmitted[repair["video"]] += 1

        async def _refs(self) -> set[tuple[str, str]]:
            async with self.gateway.gateway.db.reading() as connection:
                rows = await connection.execute(
                    sa.text("select provider, upstream_ref from attempts where upstream_ref is not null")
                )
                return {(row.provider, row.upstream_ref) for row in rows}

        @rule(budget=st.sampled_from([None, 0, 0.4, 2, 100]))
        def operator_changes_the_budget(self, budget: float | None) -> None:
            self.run(self.operator.ask("PATCH", f"keys/{self.limited_id}", monthly_budget_usd=budget))

        # What is always true

        @invariant()
        def money_adds_up(self) -> None:
            if hasattr(self, "operator"):
                self.run(self._check_money())

        async def _check_money(self) -> None:
            await self.operator.check_sums()
            async with self.gateway.gateway.db.reading() as connection:
                assert (await connection.execute(METERS)).mappings().all() == []

    return Jobs


@asynccontextmanager
async def _directory() -> AsyncIterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.slow
# A worker that dies leaves what it was just opening, as a killed process does.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
def test_jobs_and_their_money(postgres: str) -> None:
    run_state_machine_as_test(
        machine_on(postgres),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    gc.collect()  # while its warnings are still ours
