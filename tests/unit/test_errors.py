"""What an error says, as one text for people and as two fields for code."""

import pickle

import pytest

from streams.errors import DatabaseError, StreamsError


@pytest.mark.parametrize(
    ("what", "mend", "text"),
    [
        ("Kafka is away", "start it.", "Kafka is away: start it."),
        ("A: it is another.", "Set SINK_GROUP.", "A: it is another. Set SINK_GROUP."),
        ("A: was it re-created?", "Take another.", "A: was it re-created? Take another."),
        ("There is no view a.", "", "There is no view a."),
    ],
)  # fmt: skip
def test_both_halves_are_one_text(what: str, mend: str, text: str) -> None:
    error = StreamsError(what, mend)
    assert (str(error), error.what, error.mend) == (text, what, mend)


def test_an_error_that_comes_from_another_process_has_both_halves() -> None:
    error = pickle.loads(pickle.dumps(DatabaseError("Postgres refuses us", "correct the password.")))
    assert (type(error), error.what, error.mend) == (DatabaseError, "Postgres refuses us", "correct the password.")
