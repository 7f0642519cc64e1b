"""A pytest plugin for the scorecard's runs: hypothesis finds the same examples every time, and does not shrink them.

It also says which package is tested, once, so that the driver can see that it is the copy's.
"""

from __future__ import annotations

import sys

from hypothesis import Phase, settings

import streams

settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
settings.load_profile("mutants")
sys.stderr.write(f"streams: {streams.__file__}\n")
