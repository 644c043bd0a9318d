"""The command that drives the vendors' SDKs: what it refuses, and what it finds different."""

import pytest

from vendors.__main__ import SDKS, different, main


def test_words_that_no_sdk_has_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sora"]) == 2
    assert "no SDK has sora in its name; there are: fal-client==1.0.3" in capsys.readouterr().err


def test_what_an_sdk_read_otherwise_is_named() -> None:
    expected = SDKS[0].reads
    assert different(expected, expected) == []
    read = {**expected, "bytes": 0, "new": None}
    del read["events"]
    assert [line.partition(":")[0] for line in different(read, expected)] == ["events", "bytes"]
