"""Where a relay's sequence is read, from the frames as they arrive: new, seen, or of a new sequence. Pure."""
