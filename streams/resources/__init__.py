"""What we may take of this machine and of the network, and how much of it we and others take now."""
