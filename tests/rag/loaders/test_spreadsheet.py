from __future__ import annotations

import io
from datetime import date, datetime

import openpyxl

from tests.fakes.office_files import xlsx_file
from tests.fakes.parsed_documents import Read, outline


def test_each_sheet_is_a_table_under_its_name(read: Read) -> None:
    content = xlsx_file({"People": [["name", "age"], ["Ada", 36]], "Empty": [], "Places": [["town"], ["Paris"]]})

    assert outline(read("a.xlsx", content)) == [
        ("heading", "People"),
        ("table", "name | age\nAda | 36"),
        ("heading", "Places"),
        ("table", "town\nParis"),
    ]


def test_values_read_as_people_write_them(read: Read) -> None:
    row = [1.0, 0.1 + 0.2, True, date(2024, 1, 2), datetime(2024, 1, 2, 3, 4), "two\nlines", None, "end"]

    [_, (_, table)] = outline(read("a.xlsx", xlsx_file({"Sheet": [row]})))

    assert table == "1 | 0.3 | True | 2024-01-02 | 2024-01-02 03:04:00 | two lines |  | end"


def test_gaps_are_not_read(read: Read) -> None:
    content = xlsx_file({"Sheet": [["a", None, None], [], [None], ["b"]]})

    assert outline(read("a.xlsx", content))[1] == ("table", "a\nb")


def test_hidden_sheets_are_left_out(read: Read) -> None:
    workbook = openpyxl.load_workbook(io.BytesIO(xlsx_file({"Seen": [["a"]], "Hidden": [["b"]]})))
    workbook["Hidden"].sheet_state = "hidden"
    target = io.BytesIO()
    workbook.save(target)

    assert read("a.xlsx", target.getvalue()).text == "Seen\n\na"


def test_a_formula_without_a_saved_result_is_nothing(read: Read) -> None:
    assert read("a.xlsx", xlsx_file({"Sheet": [["=1+1", "a"]]})).text == "Sheet\n\n | a"
