"""Dead letters: what one holds, and how they are found, read, purged and replayed."""
