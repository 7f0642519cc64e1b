"""What people see on a terminal: pages and lines."""
