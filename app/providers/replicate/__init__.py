"""Replicate: the adapter, the inputs of the models it knows, and its store for uploads."""

from app.providers.replicate.adapter import Replicate

__all__ = ["Replicate"]
