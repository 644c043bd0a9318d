"""Converts rows to model objects, and to JSON and back.

The objects are read-only: they belong to no session, and `session.add` refuses them. To change a row, read it with a
session (`session.get`, `session.scalar`).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.models import Base

Model = TypeVar("Model", bound=Base)
Connection: TypeAlias = AsyncConnection | AsyncSession
"""Either type runs statements and returns the same rows."""


def select(model: type[Base]) -> sa.Select[Any]:
    """Select the columns of a table, for `all_of` and `one_of`."""
    return sa.select(*model.__table__.columns)


def column_list(model: type[Base]) -> str:
    """The columns of a table by name, for statements that are text: a prepared `*` fails for good when a migration adds
    a column while this release runs."""
    return ", ".join(str(column) for column in model.__table__.columns)


async def all_of(model: type[Model], connection: Connection, query: sa.Select[Any]) -> list[Model]:
    """Read the rows of a `select(model)` with more conditions."""
    return [read_only(model, row._mapping) for row in await connection.execute(query)]


async def one_of(model: type[Model], connection: Connection, query: sa.Select[Any]) -> Model | None:
    """Read the first row of a `select(model)` with more conditions; None for no row."""
    row = (await connection.execute(query)).first()
    return None if row is None else read_only(model, row._mapping)


def read_only(model: type[Model], values: Mapping[Any, Any]) -> Model:
    """Build an object from column values without session state, which takes as long as a query."""
    found = model.__new__(model)
    found.__dict__.update(values)
    return found


def from_values(model: type[Model], values: Mapping[Any, Any]) -> Model:
    """Build an object from plain values by column name, as raw SQL and `to_json` return them: text for enums, text or
    datetime for times. Missing columns are None."""
    known = {name: values.get(name) for name in model.__table__.columns.keys()}  # noqa: SIM118  # not a dict
    for name, convert in _converters(model):
        value = known[name]
        if isinstance(value, str):
            known[name] = convert(value)
    return read_only(model, known)


def replace(row: Model, **values: Any) -> Model:
    """Build a copy of a read-only object with some columns changed."""
    return read_only(type(row), {**row.__dict__, **values})


def to_json(row: Base, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the columns of a row as JSON values; times as ISO 8601."""
    columns = [name for name in row.__table__.columns.keys() if name not in without]  # noqa: SIM118  # not a dict
    values = {name: getattr(row, name) for name in columns}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}


@cache
def _converters(model: type[Base]) -> tuple[tuple[str, Callable[[str], Any]], ...]:
    found: list[tuple[str, Callable[[str], Any]]] = []
    for column in model.__table__.columns:
        if isinstance(column.type, sa.Enum) and column.type.enum_class is not None:
            found.append((column.key, column.type.enum_class))
        elif isinstance(column.type, sa.DateTime):
            found.append((column.key, datetime.fromisoformat))
    return tuple(found)
