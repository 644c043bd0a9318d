"""Declarative base: constraint names, and column types by Python type."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Enum, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from app.video import AttemptState, Billing, DeliveryState, Entry, SessionKind, Settlement, Status


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    # psycopg silently stores an aware datetime in a naive column, so all columns are aware.
    type_annotation_map = {  # noqa: RUF012
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: JSONB,
        list[Any]: JSONB,
        Status: Enum(Status, native_enum=False, create_constraint=False, length=16),
        AttemptState: Enum(AttemptState, native_enum=False, create_constraint=False, length=16),
        DeliveryState: Enum(DeliveryState, native_enum=False, create_constraint=False, length=16),
        Settlement: Enum(Settlement, native_enum=False, create_constraint=False, length=16),
        Billing: Enum(Billing, native_enum=False, create_constraint=False, length=16),
        Entry: Enum(Entry, native_enum=False, create_constraint=False, length=16),
        SessionKind: Enum(SessionKind, native_enum=False, create_constraint=False, length=16),
    }


def value_check(column: str, values: type[StrEnum]) -> str:
    return f"{column} in ({', '.join(repr(str(value)) for value in values)})"
