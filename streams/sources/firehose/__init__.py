"""A relay's firehose (com.atproto.sync.subscribeRepos), from where a run begins to the publisher.

It owns the connection to the relay and the meaning of what the relay sends or does not send. It never takes silence as
an answer, and it never writes to Kafka except through the publisher that it is given.

- ``plan``, ``start``: where a run begins (pure): resume, start, restart, overlap or refuse; what the relay keeps of it.
- ``seek``, ``probing``: the search from a time to a seq (pure), and the short connections that it needs.
  ``probing`` has the error of a relay that stays away.
- ``read_options``: the options of reading: command line and memory.
- ``reader``, ``silence``: the life of a run: connect, judge silence, connect again, handle a reset.
- ``relay``, ``frame_cutter``: one connection to a relay, and the frames cut from its bytes (pure).
- ``handshake``: the meaning of a relay's HTTP answer. Pure.
- ``foreign``: whether a stream is a firehose, from its first messages. Pure.
- ``first_frame``, ``stalled_relay``: a first frame that is late, a connection that falls silent.
- ``intake``: the hot path: each frame is published, seen, filtered, skipped or dead.
- ``sequence``: the position in the relay's sequence, from frames in any order.
"""
