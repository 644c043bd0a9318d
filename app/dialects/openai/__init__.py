"""The OpenAI dialect: `wire.py` reads and renders bodies, the other modules have the routes."""

from app.dialects.openai.videos import PREFIXES, TITLE, render_error, routes
from app.dialects.openai.webhooks import WEBHOOK_STYLE

__all__ = ["PREFIXES", "TITLE", "WEBHOOK_STYLE", "render_error", "routes"]
