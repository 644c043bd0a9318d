"""Benchmarks of speed; never part of the tests. `make bench` runs them, README.md has the method and the results."""
