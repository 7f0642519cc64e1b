"""A network to test against: a relay, what it sends, and what must come of it. Shares nothing with what it tests."""
