"""Answers as Qwen3-Coder writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.prompting.answers.qwen_xml import QWEN_XML
from tests.fakes.spoken import Spoken, read

SCHEMAS: dict[str, dict[str, Any]] = {
    "run": {
        "type": "object",
        "properties": {
            "code": {"type": "string"},
            "count": {"type": "integer"},
            "items": {"type": "array"},
            "any": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        },
    }
}


def call(*arguments: str) -> str:
    return "\n".join(["<tool_call>", "<function=run>", *arguments, "</function>", "</tool_call>"])


def argument(name: str, value: str) -> str:
    return f"<parameter={name}>\n{value}\n</parameter>"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("code", "def f():\n    return 1\n", "def f():\n    return 1\n"),
        ("code", "12", "12"),
        ("code", '<a href="x">\\n</a>', '<a href="x">\\n</a>'),
        ("code", "", ""),
        ("count", "12", 12),
        ("count", "twelve", "twelve"),
        ("items", '[{"a": 1}, "b"]', [{"a": 1}, "b"]),
        ("any", "2.5", 2.5),
        ("any", "two", "two"),
        ("other", "true", True),
        ("other", "True", True),
        ("other", "None", None),
        ("other", "NaN", "NaN"),
    ],
)
def test_an_argument_is_what_its_schema_says_or_what_it_looks_like(name: str, text: str, value: object) -> None:
    spoken = read(call(argument(name, text)), QWEN_XML, schemas=SCHEMAS)

    [(function, arguments)] = spoken.calls
    assert (function, json.loads(arguments)) == ("run", {name: value})


def test_content_and_several_calls() -> None:
    text = f"Let me see.\n{call(argument('count', '1'), argument('code', 'x'))}\n{call()}"

    spoken = read(text, QWEN_XML, schemas=SCHEMAS)

    assert spoken == Spoken("Let me see.", "", [("run", '{"count": 1, "code": "x"}'), ("run", "{}")])


def test_the_tag_around_a_function_may_be_missing() -> None:
    text = f"Now.\n<function=run>\n{argument('count', '1')}\n</function>\n</tool_call>"

    assert read(text, QWEN_XML, schemas=SCHEMAS) == Spoken("Now.", "", [("run", '{"count": 1}')])


def test_json_in_the_tag_is_understood() -> None:
    text = '<tool_call>\n{"name": "run", "arguments": {"count": 1}}\n</tool_call>'

    assert read(text, QWEN_XML, schemas=SCHEMAS) == Spoken("", "", [("run", '{"count": 1}')])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n<function=walk>\n</function>\n</tool_call>",
        "<tool_call>\n<function=run>\n<parameter=count>\n1",
        "<tool_call>\n<function=run>\nrun!\n</function>\n</tool_call>",
        "#include <functional> and <function=",
        "<tool_call>no</tool_call>",
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    assert read(text, QWEN_XML, schemas=SCHEMAS) == Spoken(text)
