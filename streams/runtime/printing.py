"""Text on standard output and standard error, whatever their encoding."""

from __future__ import annotations

import io
import sys


def print_anywhere() -> None:
    """Print a character that the terminal's encoding lacks as its number, so that no command ends for that."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
