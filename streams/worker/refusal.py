"""Why a container's start was refused, kept in the container: no restart policy can tell a setting from a crash.

``restart: on-failure`` repeats a refused start without end. ``on-failure:N`` counts crashes that are months apart,
because Docker never forgets one. So the refusal ends with 2, as everywhere. The policy then starts the same container
again, whose settings cannot have changed: that start prints the sentence once more and ends with 0, which no policy
repeats. The next start, by hand, is tried again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from streams.errors import SettingsError, StreamsError
from streams.resources.own_processes import in_container

_NAME: Final = "atproto-streams-refused"
#: What Docker and Podman put into each container, whatever its storage is. A machine that was made of an image has it
#: too: there it does no harm, for nothing but the image's command reads the note.
MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))


def is_containers_own() -> bool:
    """Return True in the container's own command, alone or below its init; not in one that somebody runs in it."""
    inside = in_container() or any(mark.exists() for mark in MARKS)
    return inside and 1 in (os.getpid(), os.getppid())


def keep(error: StreamsError) -> None:
    """Keep the error for the next start, where a setting is wrong."""
    if error.exit_code == SettingsError.exit_code and is_containers_own():
        with contextlib.suppress(OSError):  # a read-only container
            _file().write_text(f"{error}\n", encoding="utf-8")


def pop() -> str | None:
    """Return why the start before this one was refused, and forget it. None where it was not refused."""
    if not is_containers_own():
        return None
    with contextlib.suppress(OSError, UnicodeError):
        text = _file().read_text(encoding="utf-8")
        _file().unlink()
        return text.strip()
    return None


def _file() -> Path:
    """Return a file in the container's own layer: a new container, made for new settings, does not have it."""
    return Path(tempfile.gettempdir()) / _NAME
