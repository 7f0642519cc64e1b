"""The rates at which generated traffic has what is rare: #sync, states of accounts, keys that are created again."""

from __future__ import annotations

from typing import Final, NamedTuple


class TrafficRates(NamedTuple):
    """The rates of one kind of traffic, held against a number below 1 that each step and each operation draws.

    A step is an #identity below ``identity``, then a change of an account's state below ``status``, a return of an
    inactive account below ``revival``, a reset of a repository below ``reset``, and else a commit. ``birth``: how many
    of the first commits have the frames of a new account before them, a #sync among them. An operation creates a
    deleted key again from ``recreation_from`` to ``recreation_to``, and at once, in the commit that deletes it, below
    ``recreation_at_once``.
    """

    identity: float
    status: float
    revival: float
    reset: float
    birth: float
    recreation_from: float
    recreation_to: float
    recreation_at_once: float


#: Everything that can happen, far more often than on the network: for tests.
DENSE: Final = TrafficRates(0.0055, 0.0105, 0.0135, 0.0145, 0.5, 0.0, 0.085, 0.002)
#: About the network's rates: of 10,000 events one or two are a #sync, three delete an account, three create a deleted
#: key again. For measuring: with more of them nearly every batch has several stages, which no relay causes.
PLAIN: Final = TrafficRates(0.0055, 0.0062, 0.00645, 0.0065, 0.004, 0.07, 0.0702, 0.0)
