"""The Postgres side: schema, migrations, named queries, connections, the cursor row."""
