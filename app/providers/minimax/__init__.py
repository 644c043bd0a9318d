"""MiniMax: `adapter.py` is the provider, `h3.py` and `hailuo.py` the two versions of its API."""

from app.providers.minimax.adapter import MiniMax

__all__ = ["MiniMax"]
