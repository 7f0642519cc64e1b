"""The AT Protocol: bytes in, values out.

It owns frames, records, names and ids as the protocol defines them. It never does I/O.

- ``frames``: a frame of subscribeRepos into header, body and blocks.
- ``events``: a frame's body into the topic's messages, one per operation.
- ``atjson``: a record's DAG-CBOR in the protocol's JSON form.
- ``tolerant``: a slower reader for CBOR that is right but not DAG-CBOR's one form.
- ``cbor_size``: the number of values in CBOR, counted without decoding it.
- ``syntax``: the rules for DIDs, NSIDs and record keys.
- ``tid``: TIDs, the protocol's sortable ids of time.
- ``collection_filter``: BACKFILL_COLLECTIONS and INGEST_COLLECTIONS as one question.
"""
