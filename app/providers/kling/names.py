"""Names of the fields of a task in the two versions of Kling's API."""

from dataclasses import dataclass
from typing import Any

from app.providers.outputs import Place


@dataclass(frozen=True)
class Names:
    """Fields of a task in one version."""

    ref: str
    status: str
    message: str
    own_id: Place
    """Place of the id that the gateway gave it."""
    files: tuple[Place, ...]

    def own_id_of(self, task: dict[str, Any]) -> Any:
        found: Any = task
        for name in self.own_id:
            found = found.get(name) if isinstance(found, dict) else None
        return found


V2 = Names("id", "status", "message", ("external_id",), (("outputs", "url"),))
V1 = Names(
    "task_id",
    "task_status",
    "task_status_msg",
    ("task_info", "external_task_id"),
    (("task_result", "videos", "url"),),
)
