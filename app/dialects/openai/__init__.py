"""The OpenAI dialect: `wire.py` reads and renders bodies, the other modules have the routes."""

from app.dialects.openai.schemas import OpenAIError as ErrorModel
from app.dialects.openai.videos import PREFIXES, TITLE, routes
from app.dialects.openai.webhooks import WEBHOOK_STYLE
from app.dialects.openai.wire import render_error

__all__ = ["PREFIXES", "TITLE", "WEBHOOK_STYLE", "ErrorModel", "render_error", "routes"]
