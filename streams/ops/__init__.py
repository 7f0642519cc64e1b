"""What an operator sees: logs and progress."""
