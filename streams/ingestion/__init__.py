"""One ingest, whatever its source: its life, its pace, and what it says of itself."""
