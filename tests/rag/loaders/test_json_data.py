from __future__ import annotations

import pytest

from server.rag.parsing import ParseFailed
from tests.fakes.parsed_documents import Read, outline


def test_a_value_reads_like_prose(read: Read) -> None:
    document = read("a.json", '{"name": "Zo\\u00eb", "age": 1.50, "tags": ["a", "b"], "x": {"on": true, "off": null}}')

    assert document.text == "name: Zoë\nage: 1.50\ntags:\n  - a\n  - b\nx:\n  on: true\n  off:"


def test_each_record_of_a_list_is_a_block(read: Read) -> None:
    document = read("a.json", '[{"id": 1}, {"id": 2}]')

    assert outline(document) == [("paragraph", "id: 1"), ("paragraph", "id: 2")]


def test_named_lists_of_records_come_under_their_name(read: Read) -> None:
    document = read("a.json", '{"people": [{"id": 1}, {"id": 2}], "count": 2}')

    assert outline(document) == [
        ("paragraph", "count: 2"),
        ("heading", "people"),
        ("paragraph", "id: 1"),
        ("paragraph", "id: 2"),
    ]


@pytest.mark.parametrize("filename", ["a.jsonl", "a.json"])
def test_lines_of_json_are_records(read: Read, filename: str) -> None:
    assert outline(read(filename, '{"id": 1}\n\n{"id": 2}\n')) == [("paragraph", "id: 1"), ("paragraph", "id: 2")]


def test_one_value_over_many_lines_is_no_list_of_lines(read: Read) -> None:
    assert read("a.jsonl", '{\n"id":\n1}').text == "id: 1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": ', "the file is not JSON: line 1"),
        ("words", "the file is not JSON"),
        ('{"a": 1}\n{"a": \n', "line 2 is not JSON"),
    ],
)
def test_what_is_no_json_says_where(read: Read, content: str, words: str) -> None:
    with pytest.raises(ParseFailed) as caught:
        read("a.json", content)

    assert caught.value.code == "invalid_file" and words in caught.value.message


def test_numbers_stay_as_they_are_written(read: Read) -> None:
    digits = "9" * 5000

    assert read("a.json", f"[{digits}, 1e400, NaN]").text == f"- {digits}\n- 1e400\n- NaN"


def test_half_a_character_is_dropped(read: Read) -> None:
    assert read("a.json", '{"a": "x\\ud800y"}').text == "a: xy"


def test_deep_values_are_not_mostly_blanks(read: Read) -> None:
    depth = 200
    document = read("a.json", '{"a":' * depth + "1" + "}" * depth)

    assert len(document.text) < 40 * depth
