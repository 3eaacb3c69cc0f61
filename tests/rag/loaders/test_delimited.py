from __future__ import annotations

import pytest

from tests.fakes.parsed_documents import Read, outline


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_by_how_evenly_it_cuts(read: Read, delimiter: str) -> None:
    rows = [["name", "remark"], ["Ada", "first, of many; perhaps"], ["Grace", "it's 3"]]
    content = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)

    assert outline(read("a.csv", content)) == [
        ("table", "name | remark\nAda | first, of many; perhaps\nGrace | it's 3")
    ]


def test_a_row_is_a_line_whatever_its_cells_hold(read: Read) -> None:
    assert read("a.csv", 'a,b\r\n"two\nlines","say ""x"""\r\n\r\n').text == 'a | b\ntwo lines | say "x"'


def test_formulas_are_text(read: Read) -> None:
    assert read("a.csv", "a,b\n=1+1,@SUM(A1)").text == "a | b\n=1+1 | @SUM(A1)"


def test_one_column_is_a_table_too(read: Read) -> None:
    assert outline(read("a.csv", "name\nAda\nGrace")) == [("table", "name\nAda\nGrace")]
