"""The rows of the catalogue: each route of a kind that exists is one that the kind serves."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from app.capabilities import Capabilities
from app.providers import KIND_NAMES
from app.providers.base import Provider
from app.providers.catalogue import FILE, Catalogue, CatalogueRoute
from app.settings import ConfigurationError
from app.video import VideoRequest

CATALOGUE = Catalogue.load()
UNSERVED_BY_TABLE = {"lumenfall", "lunos", "openai"}
"""Kinds that take any name, so that nothing is known of one."""


def rows() -> Iterator[tuple[str, CatalogueRoute]]:
    for name, model in CATALOGUE.models.items():
        for row in model.routes:
            if row.kind in KIND_NAMES:
                yield name, row


def provider_of(kind: str) -> Provider:
    required = {"api_key": "x", "base_url": "https://x.example", "project": "x"}
    fields = KIND_NAMES[kind].Config.model_fields
    needed = {name: value for name, value in required.items() if name in fields and fields[name].is_required()}
    return KIND_NAMES[kind](kind, KIND_NAMES[kind].Config(**needed))


PROVIDERS = {kind: provider_of(kind) for kind in {row.kind for _, row in rows()}}


@pytest.mark.parametrize(("name", "row"), [pytest.param(*row, id=f"{row[0]} at {row[1].kind}") for row in rows()])
def test_a_route_of_a_known_kind_is_in_the_table_of_its_adapter(name: str, row: CatalogueRoute) -> None:
    provider = PROVIDERS[row.kind]
    for model in row.modes.values() or [row.model]:
        able = provider.capabilities(str(model))
        assert able is not None
        known = row.kind in UNSERVED_BY_TABLE or able is not provider.any_model or str(model) in provider.models
        assert known, f"{row.kind} knows nothing of {model}"


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in rows()))
def test_one_route_at_least_makes_the_defaults_of_its_model(name: str) -> None:
    default = CATALOGUE.models[name].default
    request = VideoRequest(prompt="a boat", model=name, **default)
    able = [
        PROVIDERS[row.kind].capabilities_for(row.model or next(iter(row.modes.values())), request)
        for served, row in rows()
        if served == name
    ]
    assert any(one is not None and _makes(one, default) for one in able)


def _makes(able: Capabilities, default: Mapping[Any, Any]) -> bool:
    seconds, resolution = default.get("seconds"), default.get("resolution")
    lengths = able.seconds if not able.seconds_range or able.seconds is None else range(int(able.seconds[0]), 61)
    return (seconds is None or not lengths or seconds in lengths) and (
        resolution is None or not able.resolutions or resolution in able.resolutions
    )


def test_names_are_found_without_regard_to_case() -> None:
    assert CATALOGUE.find("DoubAO-seedance-2-0-260128") == CATALOGUE.find("Seedance-2.0") == "seedance-2.0"
    assert CATALOGUE.find("seedance-9") is None
    with pytest.raises(ConfigurationError, match="two models by the name"):
        Catalogue({**CATALOGUE.models, "other": CATALOGUE.models["veo-3.1"]})


EARLIER_NAMES = {"veo-3.1-generate-preview", "veo-3.1-fast-generate-preview"}
"""Of the same models at Vertex, where the present names are in the rows."""


def test_no_spelling_of_a_model_takes_a_vendors_own_name_away() -> None:
    for name, model in CATALOGUE.models.items():
        for spelling in (name, *model.names):
            for kind, provider in PROVIDERS.items():
                if spelling in provider.listed and spelling not in EARLIER_NAMES:
                    assert spelling in {
                        str(own)
                        for row in model.routes
                        if row.kind == kind
                        for own in (row.modes.values() or [row.model])
                    }, f"{spelling} of {kind} means {name}, which has no such route"


def test_every_successor_is_a_model_and_every_row_has_a_source() -> None:
    assert CATALOGUE.updated is not None
    for model in CATALOGUE.models.values():
        assert model.replaced_by is None or model.replaced_by in CATALOGUE.models
        assert model.status != "retired" or model.retires is not None
        assert all(row.source for row in model.routes)


def test_the_file_can_be_read_in_one_sitting() -> None:
    assert len(FILE.read_text("utf-8").splitlines()) < 1_300


def write(tmp_path: Any, text: str) -> Any:
    file = tmp_path / "more.toml"
    file.write_text(text)
    return file


def test_a_file_of_the_operator_adds_and_replaces_models(tmp_path: Any) -> None:
    more = """
    updated = 2027-01-01
    [models."house-1.0"]
    title = "House"
    maker = "Us"
    about = "A model of our own."
    routes = [{ kind = "openai", model = "house", confidence = "H", source = "ours" }]
    [models."veo-3.1"]
    title = "Veo"
    maker = "Google"
    about = "Only at one vendor."
    routes = [{ kind = "fal", model = "fal-ai/veo3.1", confidence = "H", source = "ours" }]
    """
    found = Catalogue.load(write(tmp_path, more))
    assert [row.kind for row in found.models["veo-3.1"].routes] == ["fal"]
    assert found.find("House-1.0") == "house-1.0"
    assert len(found.models) == len(CATALOGUE.models) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("updated = 2027-01-01", "MODELS: Field required"),
        ("models = [", "cannot be read"),
        ('updated = 2027-01-01\n[models.x]\ntitle = "X"\nmaker = "x"\nabout = "x"\nroutes = [{ kind = "fal" }]', "x"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Any, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigurationError, match=r"more\.toml") as raised:
        Catalogue.load(file)
    assert message in str(raised.value)
