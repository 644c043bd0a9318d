"""Stateful imitations of upstreams: one ASGI app a module, what they share in `server.py`."""
