"""What measures speed; never part of the tests. `make bench` runs it, README.md says what it measures and found."""
