"""Label values of a bounded number: clients can name any model of some providers, and there may be many projects."""

from collections.abc import Collection, Mapping
from typing import Protocol

OTHER = "other"
MAX_PROJECTS = 300
"""Projects that have a label of their own in one process."""


class Listing(Protocol):
    """A provider, of which the models that it lists are known here."""

    @property
    def listed(self) -> Collection[str]: ...


class Labels:
    """Label values of this process."""

    def __init__(self) -> None:
        self._providers: Mapping[str, Listing] = {}
        self._projects: set[str] = set()

    def know(self, providers: Mapping[str, Listing]) -> None:
        """Set the providers whose listed models have labels of their own."""
        self._providers = providers

    def model(self, provider: str, model: str | None) -> str:
        """The upstream's model name if the provider lists it, else `OTHER`."""
        listed = provider in self._providers and model in self._providers[provider].listed
        return model if model and listed else OTHER

    def project(self, project_id: str) -> str:
        """The project's id, `OTHER` for those beyond the first `MAX_PROJECTS`."""
        if project_id not in self._projects:
            if len(self._projects) >= MAX_PROJECTS:
                return OTHER
            self._projects.add(project_id)
        return project_id


labels = Labels()
