"""Google's video models: at the Gemini API, and at Vertex AI."""

from app.providers.gemini.adapter import Gemini
from app.providers.gemini.vertex import Vertex

__all__ = ["Gemini", "Vertex"]
