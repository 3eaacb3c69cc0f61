"""The events of a message, put together by the SDK and by us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st

from server.api.message_events import SIGNATURE, MessageEvents, WholeMessage
from server.services.generation import ChatEvent
from server.types import Delta, Finished, Started, ToolCallDelta, Usage

USAGE = Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=3, reasoning_tokens=1)

words = st.text(min_size=1, max_size=4)
values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), st.lists, max_leaves=4)
pieces_of_json = st.tuples(
    st.dictionaries(st.text(max_size=3), values, max_size=3).map(json.dumps), st.integers(1, 5), st.booleans()
)
said = st.lists(
    st.one_of(
        st.tuples(st.just("text"), words),
        st.tuples(st.just("thought"), words),
        st.tuples(st.just("call"), pieces_of_json),
    ),
    max_size=8,
)


def deltas_of(said: list[tuple[str, Any]]) -> Iterator[Delta]:
    """Calls are numbered as they come; the arguments of some are cut, as those of the last one can be."""
    num_calls = 0
    for kind, what in said:
        if kind == "text":
            yield Delta(what)
        elif kind == "thought":
            yield Delta(reasoning=what)
        else:
            arguments, step, is_cut = what
            yield Delta(tool_calls=(ToolCallDelta(num_calls, f"call_{num_calls}", "f"),))
            for at in range(0, len(arguments) - 2 * is_cut, step):
                yield Delta(tool_calls=(ToolCallDelta(num_calls, arguments=arguments[at : at + step]),))
            num_calls += 1


def events_of(*events: ChatEvent, shows_thinking: bool = True, max_tokens: int = 4) -> list[dict[str, Any]]:
    writer = MessageEvents("msg_1", "m", max_tokens=max_tokens, shows_thinking=shows_thinking, num_documents=0)
    return [each for event in events for each in writer.say(event)]


def message_of(*events: ChatEvent, **how: Any) -> dict[str, Any]:
    message = WholeMessage()
    for event in events_of(*events, **how):
        message.add(event)
    return message.body


@given(said, st.sampled_from(["stop", "length", "tool_calls"]))
def test_the_sdk_puts_the_same_message_together(said: list[tuple[str, Any]], reason: Any) -> None:
    events: list[ChatEvent] = [Started(9), *deltas_of(said), Finished(reason, USAGE)]

    snapshot, buffers = None, dict[int, bytes]()
    for event in events_of(*events):
        if event["type"] != "message_stop":
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)  # type: ignore[arg-type]

    assert snapshot is not None
    assert snapshot.to_dict() == message_of(*events)


@given(said)
def test_blocks_are_begun_and_ended_one_after_the_other(said: list[tuple[str, Any]]) -> None:
    events = events_of(Started(9), *deltas_of(said), Finished("stop", USAGE))

    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    open_block: int | None = None
    num_blocks = 0
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert open_block is None
            open_block, num_blocks = num_blocks, num_blocks + 1
        assert event["index"] == open_block
        if event["type"] == "content_block_stop":
            open_block = None
    assert open_block is None


def test_a_turn_of_all_kinds() -> None:
    events = events_of(
        Started(9),
        Delta("Look. ", reasoning="Hm."),
        Delta("Now.", tool_calls=(ToolCallDelta(0, "call_a", "f"),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='{"a": 1}'), ToolCallDelta(1, "call_b", "g", "{}"))),
        Finished("tool_calls", USAGE),
    )

    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    one, other = ({"type": "tool_use", "id": f"toolu_{i}", "name": n, "input": {}} for i, n in (("a", "f"), ("b", "g")))
    assert events[1:-2] == [
        {"type": "content_block_start", "index": 0, "content_block": thinking},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": SIGNATURE}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Look. "}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Now."}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": one},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
        {"type": "content_block_stop", "index": 2},
        {"type": "content_block_start", "index": 3, "content_block": other},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 3},
    ]


def test_usage_counts_cached_tokens_apart() -> None:
    first, *_, last, _stop = events_of(Started(9), Delta("x"), Finished("stop", USAGE))

    assert first["message"]["usage"]["input_tokens"] == 9
    assert last["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
        "output_tokens": 4,
        "output_tokens_details": {"thinking_tokens": 1},
    }


def test_thoughts_that_shall_not_be_shown_leave_a_signed_block() -> None:
    message = message_of(Started(9), Delta("Yes.", reasoning="Hm."), Finished("stop", USAGE), shows_thinking=False)

    assert message["content"] == [
        {"type": "thinking", "thinking": "", "signature": SIGNATURE},
        {"type": "text", "text": "Yes."},
    ]


def test_what_ended_an_answer_is_told() -> None:
    def ending(finished: Finished, max_tokens: int = 4) -> tuple[str, str | None]:
        message = message_of(Started(9), finished, max_tokens=max_tokens)
        return message["stop_reason"], message["stop_sequence"]

    assert ending(Finished("stop", USAGE)) == ("end_turn", None)
    assert ending(Finished("stop", USAGE, stop_text="###")) == ("stop_sequence", "###")
    assert ending(Finished("tool_calls", USAGE, stop_text="###")) == ("tool_use", None)
    assert ending(Finished("length", USAGE)) == ("max_tokens", None)
    assert ending(Finished("length", USAGE), max_tokens=5) == ("model_context_window_exceeded", None)


def test_arguments_that_were_cut_are_kept_as_far_as_they_go() -> None:
    call = ToolCallDelta(0, "call_a", "f", '{"a": "b", "c": [1, ')

    message = message_of(Started(9), Delta(tool_calls=(call,)), Finished("length", USAGE))

    assert message["content"][0]["input"] == {"a": "b", "c": [1]}
