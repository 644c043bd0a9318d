"""fal: the adapter, and the fields of its endpoints."""

from app.providers.fal.adapter import Fal

__all__ = ["Fal"]
