"""The HTTP front that all dialects share."""
