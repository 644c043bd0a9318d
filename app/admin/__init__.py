"""The administration API, authorised by the admin key."""
