"""Whatever stands wherever in a request of Anthropic's: it is read, or refused in words."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from server.api.body import parse_body
from server.api.schemas.messages import MessageRequest
from server.errors import InvalidRequest

TEXT = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
DOCUMENT = {
    "type": "document",
    "source": {"type": "content", "content": [TEXT]},
    "title": "t",
    "citations": {"enabled": True},
}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [TEXT], "is_error": True}
REQUEST: dict[str, Any] = {
    "model": "m",
    "max_tokens": 2000,
    "system": [TEXT],
    "messages": [
        {"role": "user", "content": [TEXT, DOCUMENT]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "b", "signature": "c"}, USE]},
        {"role": "user", "content": [RESULT, TEXT]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["d"],
    "metadata": {"user_id": "e"},
}


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places_in(child, (*path, key))


def replaced(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    request = copy.deepcopy(REQUEST)
    parent: Any = request
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return request


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3)
)
values = st.recursive(
    scalars | st.sampled_from([TEXT, USE, RESULT, DOCUMENT]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def test_the_request_itself_is_read() -> None:
    wanted = parse_body(orjson.dumps(REQUEST), MessageRequest)

    assert [message.role for message in wanted.to_prompt().messages] == ["system", "user", "assistant", "tool", "user"]


@given(st.sampled_from(list(places_in(REQUEST))), values)
def test_any_value_at_any_place_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    body = orjson.dumps(replaced(path, value))

    try:
        wanted = parse_body(body, MessageRequest)
        prompt = wanted.to_prompt()
        wanted.sampling(), wanted.text_grammar(), wanted.grounding()
    except InvalidRequest as refusal:
        assert refusal.message
    else:
        assert prompt.messages
        assert all(type(message.content) is str for message in prompt.messages)


def test_thousands_of_neighbours_become_one_message_in_no_time() -> None:
    """Joined one by one they take half a minute, in which the server would answer nobody."""
    turns = [{"role": "user", "content": "x" * 3000}] * 4000
    wanted = parse_body(orjson.dumps({**REQUEST, "messages": turns}), MessageRequest)
    began_s = time.process_time()

    _system, message = wanted.to_prompt().messages

    assert time.process_time() - began_s < 5
    assert len(message.content) == 4000 * 3001 - 1
