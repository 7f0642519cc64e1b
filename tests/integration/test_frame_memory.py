"""What one hostile frame takes of memory: by the kernel's own peak, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random

import pytest

from streams.resources.memory_watch import tune_allocator
from tests.fuzz.cbor import Raw, dump, head
from tests.fuzz.frames import commit_of
from tests.fuzz.through import Ingest
from tests.support.peak import peak_bytes

MB = 1 << 20
#: Bytes of a record: the largest that the protocol allows, and nearly a whole frame.
SIZES = (MB - 1000, 5 * MB)
#: Small parts of a list, and how many values each is.
PARTS = {
    "list": (b"\x80", 1), "map": (b"\xa0", 1), "map of one": (b"\xa1\x61a\x00", 3), "text": (b"\x62ab", 1),
    "bytes": (b"\x43\x01ab", 1),
}  # fmt: skip


def taken() -> dict[str, dict[str, list[int]]]:
    """Of a frame for each part and size: events, dead letters, and by how much the peak has risen so far (MB)."""
    tune_allocator()
    at_rest, seen = peak_bytes(), {}
    for part, (data, _) in PARTS.items():
        for size in SIZES:
            count = size // len(data)
            frame = commit_of(Random(1), dump({"$type": "x", "x": Raw(head(4, count) + data * count)}))
            ingest = Ingest(filtered=False)
            ingest.take(frame)
            seen.setdefault(part, {})[str(size)] = [
                ingest.counts.events,
                ingest.counts.dead,
                (peak_bytes() - at_rest) // MB,
            ]
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak is read from /proc")
def test_records_of_small_parts_do_not_take_many_times_their_size() -> None:
    """As many as a record of 1 MiB may have take some 90 MB; 5 MB of nothing but empty maps would take 400."""
    call = f"import json; from {__name__} import taken; print(json.dumps(taken()))"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    for part, (data, values) in PARTS.items():
        for size in SIZES:
            events, dead, took = seen[part][str(size)]
            assert (events, dead) == ((0, 1) if size // len(data) * values > MB else (1, 0)), (part, size)
            assert took < 120, (part, size)
    assert took > 50, "it does not measure"
    print(seen)
