"""The tables of docs/api.md come from the schemas, that of docs/security.md from the table of access."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from server.api.reference import SCHEMAS, fill_routes, fill_tables, status_of
from server.api.schemas.chat import ChatRequest

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")


def test_the_tables_are_up_to_date() -> None:
    assert fill_tables(PAGE) == PAGE, "run `python -m server.api.reference`"


def test_the_table_of_routes_is_up_to_date() -> None:
    page = (Path(__file__).parents[2] / "docs/security.md").read_text(encoding="utf-8")

    assert fill_routes(page) == page, "run `python -m server.api.reference`"
    assert "| nothing | `/health` | GET |" in page
    assert "| `rag` | `/v1/files/{file_id}` | DELETE, GET |" in page


def test_every_schema_with_a_table_stands_on_the_page() -> None:
    assert re.findall(r"^<!-- parameters: (\w+) -->$", PAGE, re.MULTILINE) == [each.__name__ for each in SCHEMAS]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_honoured_or_ignored_says_how_or_why(schema: type[BaseModel]) -> None:
    silent = [
        name
        for name, field in schema.model_fields.items()
        if status_of(field) in ("honoured", "ignored") and not field.description
    ]

    assert not silent, "write a docstring below these fields"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("temperature", "honoured"),
        ("user", "ignored"),
        ("modalities", 'only `["text"]`'),
        ("audio", "refused"),
    ],
)
def test_a_parameter_is_honoured_refused_or_ignored(name: str, status: str) -> None:
    assert status_of(ChatRequest.model_fields[name]) == status
