"""Runway: `adapter.py` is the provider, `endpoints.py` the fields of its models, `storage.py` its store for uploads."""

from app.providers.runway.adapter import Runway

__all__ = ["Runway"]
