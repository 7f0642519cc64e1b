"""The share of this machine and of the network that we may take, and what we and others take now."""
