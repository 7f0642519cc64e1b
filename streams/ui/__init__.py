"""The output for people, and for the machines that watch for them."""
