"""Video files: storage, pictures made from them, signed links, the test card of the sandbox."""
