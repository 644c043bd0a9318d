"""PostgreSQL: connections, models, migrations, LISTEN, the embedded server; triggers in `functions/`."""
