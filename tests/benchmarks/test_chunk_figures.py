from __future__ import annotations

import pytest

from benchmarks.chunks import Piece, figures, found_within, gains
from benchmarks.doc_questions import Question
from server.rag.documents import Span

WHOLE = Span(0, 40)
PIECES = [
    Piece("a", Span(0, 20), "text", 600, WHOLE, 1200),
    Piece("a", Span(20, 40), "text", 600, WHOLE, 1200),
    Piece("b", Span(0, 20), "text", 600, Span(0, 20), 600),
]
QUESTIONS = {"docstring": [Question("where", "a", 25)], "index": [Question("which", "b")]}
GOOD = [{1: 0.9, 0: 0.8, 2: 0.7}, {2: 0.9, 0: 0.8}]
BAD = [{2: 0.9, 0: 0.8, 1: 0.7}, {0: 0.9, 2: 0.8}]


def test_places_are_found_by_their_chunk_and_pages_by_any_of_theirs() -> None:
    found = {name: measures["MRR"]["mean"] for name, measures in figures(BAD, PIECES, QUESTIONS).items()}

    assert found == {"docstring, place": pytest.approx(1 / 3, abs=1e-4), "docstring, page": 0.5, "index, page": 0.5}


def test_a_gain_is_told_for_each_kind() -> None:
    assert all(each["mean"] > 0 for each in gains(GOOD, BAD, PIECES, QUESTIONS).values())


def test_a_place_is_found_within_what_there_is_room_for() -> None:
    asked = [question for some in QUESTIONS.values() for question in some]

    assert found_within(BAD, PIECES, asked) == {
        "chunks": {1000: 0.0, 2000: 1.0, 4000: 1.0},
        "parents": {1000: 0.0, 2000: 1.0, 4000: 1.0},
    }
    assert found_within(GOOD, PIECES, asked)["parents"][1000] == 1.0, "the first is shown, however large"
