"""A network to test against: a relay, its traffic, and the oracle of what must come of it.

It never imports a module that it tests, so that a bug there cannot hide itself.

- ``__main__``: ``python -m streams.simulator``, the command of the development relay.
- ``relay``, ``subscription``: the websocket server, and one client of it.
- ``retained``, ``recording``: the frames that the relay keeps, and files of frames.
- ``admission``: refusals, limits and redirects at the handshake. Pure.
- ``manner``: the permanent differences between relays.
- ``faults``: the faults that ``--fault`` asks for.
- ``arrangement``, ``dialects``: frames in another order, or written in another way.
- ``traffic``, ``records``: seeded traffic, and the contents of its records.
- ``rates``: how often traffic has what is rare.
- ``repository``: a repository's blocks, with right CIDs.
- ``oracle``: the final state that must come out.
- ``compare``: a schema against an oracle.
"""
