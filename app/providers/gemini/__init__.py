"""Google's Gemini API: Omni by its Interactions, Veo by its long-running operations."""

from app.providers.gemini.adapter import Gemini

__all__ = ["Gemini"]
