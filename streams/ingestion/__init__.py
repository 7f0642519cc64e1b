"""One ingest, whatever its source: its life, its pace, and its reports."""
