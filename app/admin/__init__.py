"""For operators, with the admin key."""
