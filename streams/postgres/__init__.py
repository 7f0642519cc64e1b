"""The database: how it is reached, its schema, and what is written to and read from its tables and views."""
