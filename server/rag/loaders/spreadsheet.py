"""Excel workbooks (xlsx): each sheet is a table under its name. Formulas count by the results that were saved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time
from typing import Any

import openpyxl

from server.rag.documents import ParsedDocument
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile


def load_xlsx(source: SourceFile) -> ParsedDocument:
    """Sheets in order, without hidden ones."""
    assert openpyxl.DEFUSEDXML, "sheets must not be read by a parser that expands entities"
    builder = DocumentBuilder(source.limits)
    with source.path.open("rb") as file:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        for sheet in workbook.worksheets:
            if sheet.sheet_state != "visible":
                continue
            sheet.reset_dimensions()  # what a sheet says of its size need not be true
            if rows := list(_rows(sheet)):
                builder.add_heading(sheet.title, 1)
                builder.add_table(rows)
    return builder.build("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")


def _rows(sheet: Any) -> Iterator[list[str]]:
    """Rows in which there is something, each up to the last cell that has something."""
    for values in sheet.iter_rows(values_only=True):
        num_cells = next((place for place in range(len(values), 0, -1) if values[place - 1] is not None), 0)
        if num_cells:
            yield [_text_of(value) for value in values[:num_cells]]


def _text_of(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.15g}"  # as many digits as Excel keeps
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case _:
            return str(value)
