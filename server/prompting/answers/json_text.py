"""JSON as models write it, checked and copied while it comes. What has been copied whole always parses as JSON.

Strict but for one thing that models get wrong all the time: raw line breaks and other control characters inside strings
are escaped. For Gemma, strings may stand between quotes of another kind, and keys without any.
"""

from __future__ import annotations

import json
import re

from server.prompting.answers.text_source import SPACE, Reading, TextSource, Write

MAX_DEPTH = 100
"""As deep as requests may be: a client that echoes what it got must be understood."""

MAX_NUMBER_CHARS = 1000
"""Python's and other parsers refuse numbers of thousands of digits."""

_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_NUMBER_CHARS = re.compile(r"[-+.0-9eE]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_BARE_KEY = re.compile(r'[^:,{}\[\]"<>\s]*')
_LITERALS = {"t": "true", "f": "false", "n": "null"}


def copy_json(source: TextSource, write: Write, *, quote: str | None = None) -> Reading[bool]:
    """Copy one JSON value that begins here.

    Args:
        quote: Also encloses strings, without escapes inside; then keys may be bare, too.

    Returns:
        False at the first character that cannot belong to the value, which stays unread.
    """
    closers: list[str] = []
    while (yield from _copy_step(source, write, closers, quote)):
        if not closers:
            return True
    return False


def read_string(source: TextSource) -> Reading[str | None]:
    """Read a JSON string that begins here; None where it is broken."""
    pieces: list[str] = []
    if not (yield from _copy_string(source, pieces.append)):
        return None
    return str(json.loads("".join(pieces)))


def escape(text: str) -> str:
    """As the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _copy_step(source: TextSource, write: Write, closers: list[str], quote: str | None) -> Reading[bool]:
    """A scalar, or the beginning of an object or array; then all up to where the next value begins."""
    char = yield from _next_char(source, write)
    if not char or char not in "{[":
        is_whole = yield from _copy_scalar(source, write, char, quote)
        return is_whole and (yield from _copy_ends(source, write, closers, quote))
    if len(closers) == MAX_DEPTH:
        return False
    write(source.take(1))
    closers.append("}" if char == "{" else "]")
    if (yield from _next_char(source, write)) == closers[-1]:
        return (yield from _copy_ends(source, write, closers, quote))
    return closers[-1] == "]" or (yield from _copy_key(source, write, quote))


def _copy_ends(source: TextSource, write: Write, closers: list[str], quote: str | None) -> Reading[bool]:
    """Behind a value: what ends with it, and a comma where another one follows."""
    while closers:
        char = yield from _next_char(source, write)
        if char == ",":
            write(source.take(1))
            return closers[-1] == "]" or (yield from _copy_key(source, write, quote))
        if char != closers[-1]:
            return False
        write(source.take(1))
        closers.pop()
    return True


def _next_char(source: TextSource, write: Write) -> Reading[str]:
    yield from source.copy_run(SPACE, write)
    return (yield from source.peek())


def _copy_key(source: TextSource, write: Write, quote: str | None) -> Reading[bool]:
    """A key and its colon."""
    char = yield from _next_char(source, write)
    if char == '"' or (quote is not None and quote.startswith(char)):
        if not (yield from _copy_scalar(source, write, char, quote)):
            return False
    elif quote is not None:
        key = yield from source.collect_run(_BARE_KEY)
        if not key:
            return False
        write(json.dumps(key, ensure_ascii=False))
    else:
        return False
    if (yield from _next_char(source, write)) != ":":
        return False
    write(source.take(1))
    return True


def _copy_scalar(source: TextSource, write: Write, char: str, quote: str | None) -> Reading[bool]:
    if char == '"':
        return (yield from _copy_string(source, write))
    if char in _LITERALS:
        if not (yield from source.take_literal(_LITERALS[char])):
            return False
        write(_LITERALS[char])
        return True
    if quote is not None and char and quote.startswith(char):
        return (yield from _copy_quoted(source, write, quote))
    number = yield from source.collect_run(_NUMBER_CHARS)
    if len(number) > MAX_NUMBER_CHARS or not _NUMBER.fullmatch(number):
        return False
    write(number)
    return True


def _copy_string(source: TextSource, write: Write) -> Reading[bool]:
    if (yield from source.peek()) != '"':
        return False
    write(source.take(1))
    while True:
        yield from source.copy_run(_PLAIN, write)
        char = yield from source.peek()
        if char == '"':
            write(source.take(1))
            return True
        if char == "\\":
            length = yield from _length_of_escape(source)
            if not length:
                return False
            write(source.take(length))
        elif char:
            write(escape(source.take(1)))
        else:
            return False


def _length_of_escape(source: TextSource) -> Reading[int]:
    """Characters of the escape that begins here; 0: it is none."""
    kind = (yield from source.peek(2))[1:]
    if kind == "u":
        return 6 if _HEX.fullmatch((yield from source.peek(6))[2:]) else 0
    return 2 if kind and kind in '"\\/bfnrt' else 0


def _copy_quoted(source: TextSource, write: Write, quote: str) -> Reading[bool]:
    if not (yield from source.take_literal(quote)):
        return False
    write('"')
    if (yield from source.copy_until((quote,), lambda text: write(escape(text)))) is None:
        return False
    write('"')
    return True
