"""``python -m streams.local.relay``: the old name of ``python -m streams.simulator``, for one release."""

from __future__ import annotations

import sys

from streams.simulator.__main__ import main

if __name__ == "__main__":
    sys.stderr.write(
        "python -m streams.local.relay is now python -m streams.simulator: the old name goes with the next release.\n"
    )
    sys.exit(main())
