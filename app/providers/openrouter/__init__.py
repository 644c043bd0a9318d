"""OpenRouter: `adapter.py` is the provider, `listing.py` reads its list of models, `prices.py` the prices in it,
`refresh.py` keeps the list up to date; `models.json` is the list of this release."""

from app.providers.openrouter.adapter import OpenRouter

__all__ = ["OpenRouter"]
