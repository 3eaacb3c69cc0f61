"""Whatever a generation says, its events tell the same as the response that ends them, in the SDK's types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.response_writer import Event, ResponseWriter
from server.errors import InternalError
from server.rag.documents import Span
from server.rag.prompt import Source
from server.services.generation import ChatEvent
from server.services.grounding import Cited, CitedSource, Sourced
from server.types import Delta, Finished, Started, ToolCallDelta, Usage
from tests.fakes.responses import check_event, check_response

HEAD: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
SOURCE = Source(document_id=1, file_id="file-1", filename="a.txt", span=Span(0, 3), text="abc", attributes={"year": 1})
MARK = CitedSource(start=0, end=3, number=1, quote=None, is_supported=True)
USAGE = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=1, reasoning_tokens=2)


def told(events: Sequence[ChatEvent], *, with_results: bool = False) -> list[Event]:
    """All events of a response, the last one included, each checked."""
    writer = ResponseWriter(HEAD, with_results=with_results)
    made = [event for each in events for event in writer.write(each)] + [writer.end()]
    for number, event in enumerate(made):
        check_event({**event, "sequence_number": number})
    return made


def answer(*deltas: Delta, reason: Any = "stop") -> list[ChatEvent]:
    return [Started(3), *deltas, Finished(reason, USAGE)]


def grounded(*deltas: Delta, sourced: Sourced, cited: Cited) -> list[ChatEvent]:
    return [Started(3), sourced, *deltas, cited, Finished("stop", USAGE)]


def types_of(events: Sequence[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


TEXTS = st.text("ab[1] ", max_size=4)


@st.composite
def deltas(draw: st.DrawFn) -> list[Delta]:
    """What an engine may say: calls begin with their id, and are told one after the other."""
    said: list[Delta] = []
    num_calls = 0
    for kind in draw(st.lists(st.sampled_from(["reasoning", "text", "call", "all"]), max_size=8)):
        calls: list[ToolCallDelta] = []
        if kind in ("call", "all"):
            calls.append(ToolCallDelta(num_calls, f"call_{num_calls}", "f", draw(TEXTS)))
            calls += [ToolCallDelta(num_calls, arguments=text) for text in draw(st.lists(TEXTS, max_size=2))]
            num_calls += 1
        said.append(
            Delta(
                draw(TEXTS) if kind in ("text", "all") else "",
                tuple(calls),
                draw(TEXTS) if kind in ("reasoning", "all") else "",
            )
        )
    return said


@given(deltas(), st.sampled_from(["stop", "length", "tool_calls"]), st.booleans())
def test_the_events_tell_what_the_response_says(said: list[Delta], reason: Any, is_grounded: bool) -> None:
    sourced = Sourced(queries=("q",), sources=(SOURCE,))
    text = "".join(delta.text for delta in said)
    cited = Cited(text=text, marks=(MARK,))
    events = answer(*said, reason=reason)
    if is_grounded:
        events = [events[0], sourced, *events[1:-1], cited, events[-1]]

    made = told(events)

    response = check_response(made[-1]["response"])
    output = response["output"]
    done = {event["output_index"]: event["item"] for event in made if event["type"] == "response.output_item.done"}
    assert [done[index] for index in range(len(done))] == output  # each once, and nothing else
    assert types_of(made).count("output_item.added") == len(output)
    heard: dict[str, str] = {}
    for event in made:
        if event["type"].endswith(".delta"):
            heard[event["item_id"]] = heard.get(event["item_id"], "") + event["delta"]
    said_by_item = {
        item["id"]: item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        for item in output
        if item["type"] != "file_search_call"
    }
    assert {id_: text for id_, text in said_by_item.items() if text} == heard
    assert "".join(said_by_item[item["id"]] for item in output if item["type"] == "message") == text
    assert [item["call_id"] for item in output if item["type"] == "function_call"] == [
        call.id for delta in said for call in delta.tool_calls if call.id
    ]
    annotations = [item["content"][0]["annotations"] for item in output if item["type"] == "message"]
    assert sum(map(len, annotations)) == (1 if is_grounded and text else 0)


def test_a_text_comes_in_the_order_of_openai() -> None:
    made = told(answer(Delta("Hel"), Delta("lo")))

    assert types_of(made) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert made[2]["item"]["content"] == []
    assert made[3]["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert made[6]["text"] == "Hello"


def test_thoughts_and_calls_are_items_of_their_own() -> None:
    call = (ToolCallDelta(0, "call_1", "f"), ToolCallDelta(0, arguments='{"a":'), ToolCallDelta(0, arguments="1}"))
    made = told(answer(Delta(reasoning="Hm."), Delta("Look."), Delta(tool_calls=call), reason="tool_calls"))

    reasoning, message, called = made[-1]["response"]["output"]
    assert (reasoning["type"], reasoning["summary"]) == ("reasoning", [])
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "Look."
    assert (called["call_id"], called["name"], called["arguments"]) == ("call_1", "f", '{"a":1}')
    assert types_of(made)[-6:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_a_search_comes_first_and_citations_before_the_message_ends() -> None:
    call = (ToolCallDelta(0, "call_1", "f", "{}"),)
    made = told(
        grounded(
            Delta("[1]"),
            Delta(tool_calls=call),
            sourced=Sourced(queries=("q",), sources=(SOURCE,)),
            cited=Cited(text="[1]", marks=(MARK,)),
        ),
        with_results=True,
    )

    search, message, _call = made[-1]["response"]["output"]
    assert (search["status"], search["queries"]) == ("completed", ["q"])
    [result] = search["results"]
    assert {name: result[name] for name in ("file_id", "filename", "text", "score", "attributes")} == {
        "file_id": "file-1",
        "filename": "a.txt",
        "text": "abc",
        "score": 0.0,
        "attributes": {"year": 1},
    }
    [annotation] = message["content"][0]["annotations"]
    assert (annotation["type"], annotation["index"], annotation["file_id"]) == ("file_citation", 0, "file-1")
    names = types_of(made)
    assert names[2:7] == [
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "output_item.done",
    ]
    assert names[-7:] == [
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_results_are_given_to_those_who_ask() -> None:
    made = told(grounded(Delta("a"), sourced=Sourced(queries=("q",), sources=(SOURCE,)), cited=Cited(text="a")))

    assert made[-1]["response"]["output"][0]["results"] is None


def test_documents_of_a_rag_model_without_a_search_are_no_search() -> None:
    made = told(grounded(Delta("a"), sourced=Sourced(sources=(SOURCE,)), cited=Cited(text="a")))

    assert [item["type"] for item in made[-1]["response"]["output"]] == ["message"]


def test_what_is_cut_is_incomplete_and_what_came_before_is_not() -> None:
    made = told(answer(Delta("a", reasoning="b"), reason="length"))

    response = made[-1]["response"]
    assert (made[-1]["type"], response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    [message] = told(answer())[-1]["response"]["output"]

    assert message["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]


def test_usage_is_counted_in_the_words_of_this_api() -> None:
    assert told(answer(Delta("a")))[-1]["response"]["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 7,
    }


def test_a_failure_shows_what_there_is_so_far() -> None:
    writer = ResponseWriter(HEAD, with_results=False)
    for event in (Started(3), Delta(reasoning="a"), Delta("b")):
        list(writer.write(event))

    failed = writer.fail({"code": "server_error", "message": "died"})

    check_event({**failed, "sequence_number": 0})
    response = check_response(failed["response"])
    assert (response["status"], response["error"]["message"]) == ("failed", "died")
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_a_generation_without_an_ending_is_a_bug() -> None:
    writer = ResponseWriter(HEAD, with_results=False)
    list(writer.write(Started(3)))

    with pytest.raises(InternalError):
        writer.end()
