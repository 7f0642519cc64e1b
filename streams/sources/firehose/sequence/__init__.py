"""The position in a relay's sequence, from frames as they arrive: new, seen, or of a sequence that was reset.

It never does I/O and reads no clock. No single frame moves the position or proves a reset.

- ``continuity``: the position, what is new, what was left out.
- ``arrivals``: a frame as it arrives, its fate, and the memory of the events that were taken lately.
- ``arrival_times``: the usual time of some arrivals, although a few clocks are wrong.
- ``stream_time``: the time up to which the stream was read.
- ``resets``: what proves that the relay's sequence began again.
"""
