"""Long jobs that an operator starts, each of which can be killed and started again; and their lines of progress."""
