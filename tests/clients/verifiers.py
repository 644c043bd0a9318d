"""Driver of the Python libraries that verify webhooks: `standardwebhooks` or `svix`, by the argument."""

import os
import sys
from importlib import import_module
from importlib.metadata import version

from clients.steps import event, report, step


def main(package: str) -> None:
    report("version", version(package))
    library = import_module(package if package == "standardwebhooks" else f"{package}.webhooks")
    if "EVENT" not in os.environ:
        report("webhook", "not tried")
        return
    with step("webhook"):
        body, headers, secret = event()
        library.Webhook(secret).verify(body, headers)
        try:
            library.Webhook(secret).verify(body + b" ", headers)
        except library.WebhookVerificationError:
            return
        raise ValueError("a changed body passes")


main(sys.argv[1])
