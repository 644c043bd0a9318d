"""Drivers of the real clients, each run in an environment of its own by `make test-clients`; no tests of pytest."""
