"""The HTTP front that dialects and the admin API share: bodies, uploads, creation, waiting, files, errors, limits."""
