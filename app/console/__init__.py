"""The console: pages in a browser for holders of keys and for the operator.

It calls the functions that the API's routes call, and has no power of its own.
"""

from app.console import connect, library, models, overview, playground, providers, repairs, signin

ROUTES = (
    signin.routes,
    playground.routes,
    library.routes,
    models.routes,
    connect.routes,
    overview.routes,
    providers.routes,
    repairs.routes,
    signin.unknown,
)
"""The routes of all pages; the last ones take what is left of `/console`."""
