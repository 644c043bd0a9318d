"""Projects, API keys, limits, prices and the ledger."""
