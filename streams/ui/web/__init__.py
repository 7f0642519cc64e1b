"""The web port of worker and ingest: live page, events, metrics and health. Read-only; on loopback by default."""
