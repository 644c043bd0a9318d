"""The operator's JSON API under /admin/v1, with the admin key."""
