"""Provider contract: what vendors' own SDKs send and read, request by request."""

from collections import Counter

import pytest
from contract.recorded import KINDS, TABLE, Case, Replay, cases, explained, replay, unused_rows

pytestmark = pytest.mark.anyio

LEAST_COVERED = 0.9
"""Share of the cases that count which each kind has to cover; of all kinds together it is `LEAST_COVERED_IN_ALL`."""
LEAST_COVERED_IN_ALL = 0.95
MOST_DIFFERENCES = 48
REASONS = (
    *("account", "gRPC", "list", "mistake", "no operation", "other kind"),
    *("redirect", "retries", "upload", "waiting", "webhooks"),
)

COUNTED = [case for kind in KINDS for case in cases(kind) if case.left_out is None and case.row]


@pytest.fixture(scope="module")
async def replays() -> dict[tuple[str, str], Replay]:
    """Every case, replayed once for all tests."""
    return {(case.kind, case.name): await replay(case) for case in COUNTED}


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: f"{case.kind}: {case.name}")
async def test_an_adapter_sends_and_reads_what_the_vendors_sdk_does(
    replays: dict[tuple[str, str], Replay], case: Case
) -> None:
    found = replays[case.kind, case.name]
    assert found.read == case.row["reads"]
    assert [difference for difference in found.differences if explained(case.kind, difference) is None] == []


async def test_every_difference_is_one_that_a_case_has(replays: dict[tuple[str, str], Replay]) -> None:
    used = {explained(kind, difference) for (kind, _), found in replays.items() for difference in found.differences}
    assert [entry for number, entry in enumerate(TABLE["differences"]) if number not in used] == []
    assert len(TABLE["differences"]) <= MOST_DIFFERENCES
    assert all(entry["reason"].endswith(".") for entry in TABLE["differences"])


def test_nearly_every_case_that_counts_is_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    covered: Counter[str] = Counter(case.kind for case in COUNTED)
    counting = Counter(case.kind for kind in KINDS for case in cases(kind) if case.left_out is None)
    with capsys.disabled():
        for kind in KINDS:
            print(f"\nrecordings of {kind}: {covered[kind]} of {counting[kind]} cases", end="")  # noqa: T201  # the result for whoever runs it
    missing = [case.name for kind in KINDS for case in cases(kind) if case.left_out is None and not case.row]
    assert covered.total() >= LEAST_COVERED_IN_ALL * counting.total(), missing
    assert all(covered[kind] >= LEAST_COVERED * counting[kind] for kind in KINDS), missing


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_a_recorded_case(kind: str) -> None:
    assert unused_rows(kind) == []
    assert {row["not"] for row in TABLE["kinds"][kind]["cases"].values() if "not" in row} <= set(REASONS)
