"""Kling by its own API: API 2.0, and the older one that it calls v1."""

from app.providers.kling.adapter import Kling

__all__ = ["Kling"]
