"""``python -m streams.run``: the old name of ``python -m streams.local run``, for one release."""

from __future__ import annotations

import sys

from streams.local.run import main

if __name__ == "__main__":
    sys.stderr.write(
        "python -m streams.run is now python -m streams.local run: the old name goes with the next release.\n"
    )
    sys.exit(main())
