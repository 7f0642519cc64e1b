"""Where events come from: what is asked of a source while it is read, and a package for each kind."""
