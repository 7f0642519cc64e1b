"""The mutation scorecard: known bugs, put in one at a time; each must be caught by a named test. ``make mutants``."""
