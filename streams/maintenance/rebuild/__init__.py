"""A schema made again from the retained topic, beside the live one: filled, compared, swapped in.

It owns the table ``rebuild_state`` and the swap. It never changes the live schema before the swap.

- ``course``: the steps of a rebuild, and where it continues when it is started again.
- ``schema``: the schema under construction: its state, lock, seed, and what it takes over.
- ``fill``: the topic into that schema, by the worker's own lanes.
- ``compare``: both schemas row by row, in one snapshot.
- ``swap``: one transaction that puts it in the live one's place.
"""
