"""Calls as one JSON object: `{"name": "f", "arguments": {"a": 1}}`."""

from __future__ import annotations

from collections.abc import Container

from server.prompting.answers.answer_writer import Call
from server.prompting.answers.json_text import copy_json, read_string
from server.prompting.answers.text_source import Reading, TextSource, ignore

_ARGUMENTS = ("arguments", "parameters")


def read_json_call(source: TextSource, call: Call, *, keys: Container[str] | None = None) -> Reading[bool]:
    """Read a call that begins here, its keys in any order.

    Args:
        keys: All that it may have, where a JSON object need not be a call; else others are skipped.
    """
    if not (yield from source.take_literal("{")):
        return False
    seen: set[str] = set()
    is_whole = False
    while not is_whole:
        key = yield from _read_key(source)
        if key is None or key in seen or (keys is not None and key not in keys):
            return False
        if key in _ARGUMENTS:
            seen.update(_ARGUMENTS)
            is_good = yield from copy_json(source, call.arguments)
        elif key == "name":
            name = yield from read_string(source)
            is_good = name is not None and call.name(name)
        else:
            is_good = yield from copy_json(source, ignore)
        yield from source.skip_space()
        is_whole = is_good and (yield from source.take_literal("}"))
        if not is_whole and not (is_good and (yield from source.take_literal(","))):
            return False
    return True


def _read_key(source: TextSource) -> Reading[str | None]:
    """A key and its colon."""
    yield from source.skip_space()
    key = yield from read_string(source)
    yield from source.skip_space()
    if key is None or not (yield from source.take_literal(":")):
        return None
    yield from source.skip_space()
    return key
