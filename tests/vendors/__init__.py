"""Vendors' own SDKs as clients of the fakes, each run in an environment of its own by `make test-vendors`."""
