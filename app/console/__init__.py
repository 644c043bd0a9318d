"""The console: pages in a browser for holders of keys and for the operator.

It calls the functions that the API's routes call, and has no power of its own.
"""

from app.console import (
    account_keys,
    accounts,
    audit_log,
    bulk,
    connect,
    installation,
    library,
    models,
    overview,
    playground,
    providers,
    repairs,
    signin,
    usage,
    videos,
    webhook_log,
    webhooks,
)

ROUTES = (
    signin.routes,
    playground.routes,
    library.routes,
    models.routes,
    connect.routes,
    overview.routes,
    providers.routes,
    repairs.routes,
    accounts.routes,
    account_keys.routes,
    audit_log.routes,
    installation.routes,
    usage.routes,
    webhook_log.routes,
    webhooks.routes,
    bulk.routes,
    videos.routes,
    signin.unknown,
)
"""The routes of all pages; the last ones take what is left of `/console`."""
