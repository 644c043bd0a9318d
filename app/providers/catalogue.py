"""The catalogue: models by one name, with the vendors that serve them. Data in `catalogue.toml`, which a file of the
operator can extend. Pure but for reading the files."""

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.mistakes import explain
from app.settings import ConfigurationError
from app.video import MAX_NAME_CHARACTERS, Operation, VideoRequest

FILE = Path(__file__).with_suffix(".toml")
Mode = Literal["t2v", "i2v", "flf", "r2v", "v2v", "extend"]
"""Kind of input for which some vendors have a model id of its own; see the head of the data file."""
NARROWER: dict[str, tuple[Mode, ...]] = {"flf": ("flf", "i2v"), "i2v": ("i2v",), "r2v": ("r2v",)}
"""Modes that serve an input, the closest first; any other mode serves its own."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogueRoute(_Row):
    """One way to get a model: a kind of provider, and the vendor's own id or ids."""

    kind: Name
    model: Name | None = None
    modes: dict[Mode, Name] = {}
    region: str | None = None
    retires: date | None = None
    confidence: Literal["H", "M", "L"]
    source: str

    @model_validator(mode="after")
    def _one_of_both(self) -> "CatalogueRoute":
        if (self.model is None) == (not self.modes):
            raise ValueError("expected either model or modes")
        return self


class CatalogueModel(_Row):
    """One model, whoever serves it."""

    title: str
    maker: str
    about: str
    names: tuple[Name, ...] = ()
    status: Literal["current", "legacy", "retired"] = "current"
    retires: date | None = None
    replaced_by: Name | None = None
    default: dict[Literal["seconds", "resolution", "aspect_ratio"], Any] = {}
    routes: tuple[CatalogueRoute, ...] = ()


class _Document(_Row):
    updated: date
    models: dict[Name, CatalogueModel]


class Catalogue:
    """All models of the catalogue."""

    def __init__(self, models: Mapping[str, CatalogueModel], updated: date | None = None) -> None:
        """Make a catalogue. Raises `ConfigurationError` if one name means two models."""
        self.models = models
        self.updated = updated
        self._names: dict[str, str] = {}
        for name, model in models.items():
            for spelling in (name, *model.names):
                other = self._names.setdefault(spelling.lower(), name)
                if other != name:
                    raise ConfigurationError(f"the catalogue has two models by the name {spelling}: {other} and {name}")

    @classmethod
    def load(cls, file: Path | None = None) -> "Catalogue":
        """Read the catalogue of this release; models in `file` replace those of the same name, or are added. Raises
        `ConfigurationError`."""
        own = _released()
        if file is None:
            return cls(own.models, own.updated)
        more = _read(file)
        return cls({**own.models, **more.models}, max(own.updated, more.updated))

    def find(self, name: str) -> str | None:
        """The catalogue's name for a model, by any of its names."""
        return self._names.get(name.lower())


EMPTY = Catalogue({})


def mode_of(request: VideoRequest) -> str:
    """The kind of input of a request."""
    if request.operation is not Operation.generate:
        return "extend" if request.operation.lengthens else "v2v"
    if request.reference_images or request.reference_video:
        return "r2v"
    if request.last_frame is not None:
        return "flf"
    return "i2v" if request.first_frame is not None else "t2v"


def id_for(modes: Mapping[str, str], request: VideoRequest) -> str | None:
    """The vendor's id for a request, by its kind of input; None if there is none."""
    mode = mode_of(request)
    return next((modes[one] for one in NARROWER.get(mode, (mode,)) if one in modes), None)


@cache
def _released() -> _Document:
    return _read(FILE)


def _read(file: Path) -> _Document:
    try:
        return _Document.model_validate(tomllib.loads(file.read_text("utf-8")))
    except ValidationError as error:
        raise ConfigurationError(f"{file} cannot be used as catalogue: {explain(error, '')}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"GATEWAY_CATALOGUE_FILE: {file} cannot be read: {error}") from None
