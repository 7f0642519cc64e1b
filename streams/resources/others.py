"""Other work on this machine: its processes, and how much they use. Pure."""

from __future__ import annotations

import msgspec


class Other(msgspec.Struct, frozen=True):
    """Other work: processes of one name, and the share of the cores that they use together."""

    name: str
    share: float


def others_in_words(share: float, top: tuple[Other, ...]) -> str:
    """Return what others use of the machine, and who they are."""
    named = ", ".join(f"{other.name} {other.share * 100:.0f} %" for other in top)
    return f"others use {share * 100:.0f} % of the machine" + (f" ({named})" if named else "")
