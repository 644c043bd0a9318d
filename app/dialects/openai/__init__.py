"""The OpenAI dialect: `wire.py` reads and renders bodies, `videos.py` and `webhooks.py` have the routes."""

from app.dialects.openai.videos import PREFIXES, TITLE, ErrorModel, render_error, routes
from app.dialects.openai.webhooks import WEBHOOK_STYLE

__all__ = ["PREFIXES", "TITLE", "WEBHOOK_STYLE", "ErrorModel", "render_error", "routes"]
