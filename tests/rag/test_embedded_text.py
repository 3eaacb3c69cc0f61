from __future__ import annotations

import pytest

from server.rag.embedded_text import embedded_text


@pytest.mark.parametrize(
    ("heading", "columns", "context", "expected"),
    [
        ("", "", "", "It is warm."),
        ("House > Hearth", "", "", "House > Hearth\nIt is warm."),
        ("House > Hearth", "", "About fire.", "About fire.\nHouse > Hearth\nIt is warm."),
        ("", "", "About fire.", "About fire.\nIt is warm."),
        ("House > Hearth", "What | How", "About fire.", "About fire.\nHouse > Hearth\nWhat | How\nIt is warm."),
    ],
)
def test_what_a_chunk_does_not_say_itself_goes_before_it(
    heading: str, columns: str, context: str, expected: str
) -> None:
    assert embedded_text("It is warm.", heading=heading, columns=columns, context=context) == expected
