"""Files: store, pictures, links."""
