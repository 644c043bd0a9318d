"""A gateway of its own under requests made from its OpenAPI description; `make fuzz`, never part of the tests."""
