"""Random sequences of arrivals, as real relays send them, against the model of continuity and the whole pipeline.

``python -m tests.arrivals --sequences 1000000`` runs the pure model; see ``--help``.
"""
