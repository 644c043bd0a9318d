"""Projects, keys, limits, prices and the ledger."""
