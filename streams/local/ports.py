"""Ports on the loopback interface: chosen free, below the range that the system gives to outgoing connections."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from streams.errors import StreamsError

LOOPBACK = "127.0.0.1"
#: Linux gives ports from 32768 up to outgoing connections; one of those would not stay free between two starts.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return True if a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(count: int, keep: Collection[int] = ()) -> list[int]:
    """``count`` free ports: those of ``keep`` if all are free, else new ones. Raises StreamsError if there are none."""
    if len(keep) == count and all(is_free(port) for port in keep):
        return list(keep)
    free: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if is_free(port):
            free.append(port)
            if len(free) == count:
                return free
    raise StreamsError(f"No free port between {RANGE.start} and {RANGE.stop} on {LOOPBACK}", "end what holds them.")
