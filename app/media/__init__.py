"""Media files: storage, pictures, signed links."""
