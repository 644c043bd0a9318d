"""The OpenAI dialect."""

from app.dialects.openai.videos import PREFIXES, render_error, routes

__all__ = ["PREFIXES", "render_error", "routes"]
