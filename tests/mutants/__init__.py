"""The mutation scorecard: known bugs (``mutants.toml``), put in one at a time. ``make mutants``.

Each must be caught by a named test.
"""
