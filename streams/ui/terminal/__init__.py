"""The output on a terminal: pages and lines."""
