"""The sources of events: the contract of a source, and a package for each kind."""
