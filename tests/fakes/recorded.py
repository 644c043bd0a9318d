"""Recorded answers of the vendors (`tests/recordings`), from which the fakes build their own."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "recordings"


@cache
def _answers(file: str) -> dict[str, list[Any]]:
    document = json.loads((FOLDER / f"{file}.json").read_text("utf-8"))
    return {case["name"]: [response.get("body") for response in case["responses"]] for case in document["cases"]}


def recorded(file: str, case: str, number: int = 0) -> Any:
    """The body of one recorded answer, as a copy that the fake may change."""
    return copy.deepcopy(_answers(file)[case][number])
