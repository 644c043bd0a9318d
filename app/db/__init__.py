"""PostgreSQL: engine, tables, embedded server, LISTEN."""
