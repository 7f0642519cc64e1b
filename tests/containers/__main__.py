"""Start the engine with all images, and a shell that knows it: ``python -m tests.containers``, as root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from streams.errors import StreamsError
from tests.containers import images
from tests.containers.engine import Engine, missing
from tests.containers.project import Project


def main() -> int:
    """Run a shell in a clone of the project, where docker-compose and docker work; the engine ends with it."""
    reason = missing()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="atproto-streams-engine-") as folder:
        try:
            with Engine(Path(folder)) as engine:
                images.build_all(engine)
                clone = Path(folder) / "atproto-streams"
                clone.mkdir()
                project = Project(engine, clone)
                print(f"The engine's network is entered by: {' '.join(engine.inside([]))} COMMAND")
                shell = os.environ.get("SHELL", "/bin/sh")
                return subprocess.run([shell], env=project.environment, cwd=clone, check=False).returncode
        except StreamsError as error:
            print(error, file=sys.stderr)
            return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
