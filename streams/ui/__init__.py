"""What people see, and the machines that watch for them."""
