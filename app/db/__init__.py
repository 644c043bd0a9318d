"""PostgreSQL: engine, models, migrations, embedded server, LISTEN."""
