"""The console: pages in a browser for holders of keys and for the operator.

It calls the functions that the API's routes call, and has no power of its own.
"""

from app.console import bulk, library, models, playground, signin, videos

ROUTES = (
    *(signin.routes, playground.routes, bulk.routes, library.routes, videos.routes, models.routes),
    signin.unknown,
)
"""The routes of all pages; the last ones take what is left of `/console`."""
