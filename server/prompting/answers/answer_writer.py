"""What readers find in a model's text, put together as an answer: content, reasoning, tool calls.

The rule for calls: one counts if its function may be called and its arguments are a JSON object. Anything else that
looks like a call is content, as it was written. So a call is delivered when it is whole; where a grammar makes sure
that it will be, unless the answer is cut, it is delivered as it comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from server.prompting.answers.text_source import Reading, TextSource
from server.types import Delta, ToolCallDelta, new_call_id

Span = tuple[int, int]
"""Where something begins and ends, in characters of the text that is read."""


class AnswerWriter:
    """Collects what has been found since the last `take`.

    White space around reasoning and calls belongs to neither content nor them. What is written is always what has just
    been read, so that its place in the text is known.

    Args:
        names: Functions that may be called.
        max_calls: Everything behind so many calls is dropped.
        trusts_calls: A grammar makes sure of every call, so that it may be delivered as it comes.

    Attributes:
        is_reasoning: The text is reasoning, for now.
        num_calls: Calls that have begun to be delivered.
        num_settled: Characters of the text of which it is known that they are, or are not, content.
    """

    def __init__(
        self, names: Set[str] = frozenset(), *, max_calls: int | None = None, trusts_calls: bool = False
    ) -> None:
        self._names = names
        self._max_calls = max_calls
        self.trusts_calls = trusts_calls
        self._content = _Strand()
        self._reasoning = _Strand()
        self._reasoning.pause()
        self._deltas: list[_CallDelta] = []
        self._is_call_open = False
        self._source = TextSource()
        self.is_reasoning = False
        self.num_calls = 0
        self.num_settled = 0

    def follow(self, source: TextSource) -> None:
        """What is written from now on has been read from here."""
        self._source = source

    @property
    def is_full(self) -> bool:
        """Nothing more will be taken: the last call that was allowed is whole."""
        return self.num_calls == self._max_calls and not self._is_call_open

    def content(self, text: str) -> None:
        if not self.is_full:
            self._content.write(text, end=self._source.num_read)

    def begin_reasoning(self) -> None:
        self.is_reasoning = True
        self._content.pause()
        self._reasoning.pause()

    def reasoning(self, text: str) -> None:
        if not self.is_full:
            self._reasoning.write(text, end=self._source.num_read)
            self.num_settled = self._source.num_read

    def end_reasoning(self) -> None:
        self.is_reasoning = False
        self._reasoning.pause()
        self._content.pause()

    def attempt_call(
        self, source: TextSource, read: Callable[[Call], Reading[bool]], *, beginning: str = ""
    ) -> Reading[bool]:
        """Read a call. If it is none, what was read of it is content, its `beginning`, read before, included."""
        source.record(beginning)
        call = Call(self)
        is_call = (yield from read(call)) and call.end()
        text = source.recorded()
        if not is_call and not call.is_announced:
            self.content(text)
        return is_call

    def finish(self) -> None:
        """The answer ends here."""
        self._content.flush()

    def take(self) -> Delta | None:
        calls = tuple(ToolCallDelta(each.index, each.id, each.name, "".join(each.arguments)) for each in self._deltas)
        self._deltas = []
        delta = Delta(self._content.take(), calls, self._reasoning.take())
        return delta if delta.text or delta.tool_calls or delta.reasoning else None

    def take_spans(self) -> list[Span]:
        """Where the content that was taken since the last time stands in the text, in order."""
        return self._content.take_spans()

    # ---- for `Call`

    def may_call(self, name: str) -> bool:
        return name in self._names and not self.is_full

    def announce(self, name: str) -> int:
        """Begin to deliver a call; return its index."""
        index, self.num_calls = self.num_calls, self.num_calls + 1
        self._is_call_open = True
        self._content.pause()
        self.num_settled = self._source.num_read
        self._deltas.append(_CallDelta(index, new_call_id(), name))
        return index

    def add_arguments(self, index: int, text: str) -> None:
        if not self._deltas or self._deltas[-1].index != index:
            self._deltas.append(_CallDelta(index))
        self._deltas[-1].arguments.append(text)
        self.num_settled = self._source.num_read

    def end_call(self) -> None:
        self._is_call_open = False


@dataclass
class _CallDelta:
    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Call:
    """One call, while it is read: `name` and `arguments` in whatever order the format has them."""

    def __init__(self, answer: AnswerWriter) -> None:
        self._answer = answer
        self._name: str | None = None
        self._arguments: list[str] = []
        self._index: int | None = None

    @property
    def is_announced(self) -> bool:
        """The client has heard of it, so that it cannot become content any more."""
        return self._index is not None

    def name(self, name: str) -> bool:
        """Say which function is called; false if it must not be."""
        if self._name is not None or not self._answer.may_call(name):
            return False
        self._name = name
        if self._answer.trusts_calls:
            self._announce(name)
        return True

    def arguments(self, text: str) -> None:
        """Add to the text of the arguments."""
        if self._index is None:
            self._arguments.append(text)
        else:
            self._answer.add_arguments(self._index, text)

    def end(self) -> bool:
        """Deliver what was held back; false if this is no call."""
        if self._index is None:
            arguments = _as_object("".join(self._arguments))
            if self._name is None or arguments is None:
                return False
            self._arguments = [arguments]
            self._announce(self._name)
        self._answer.end_call()
        return True

    def _announce(self, name: str) -> None:
        self._index = self._answer.announce(name)
        for text in self._arguments:
            self._answer.add_arguments(self._index, text)
        self._arguments = []


class _Strand:
    """One kind of text, whose white space at the end is held back until it is known to be inside."""

    def __init__(self) -> None:
        self._ready: list[str] = []
        self._held: list[str] = []
        self._spans: list[Span] = []  # of what is ready, and of what is held
        self._held_spans: list[Span] = []
        self._drops_space = False
        self._is_empty = True

    def write(self, text: str, *, end: int) -> None:
        """Add text, behind whose last character the next one stands at `end`."""
        if self._drops_space:
            text = text.lstrip()
        if not text:
            return
        self._drops_space = False
        body = text.rstrip()
        middle = end - len(text) + len(body)
        if body:
            self._ready += [*self._held, body]
            for span in (*self._held_spans, (end - len(text), middle)):
                _add_span(self._spans, span)
            self._held, self._held_spans = [], []
            self._is_empty = False
        if len(body) < len(text):
            self._held.append(text[len(body) :])
            _add_span(self._held_spans, (middle, end))

    def pause(self) -> None:
        """Something else comes here: white space around it does not count, and what follows it begins a line."""
        self._held = [] if self._is_empty else ["\n"]
        self._held_spans = []
        self._drops_space = True

    def flush(self) -> None:
        if not self._drops_space:
            self._ready += self._held
            for span in self._held_spans:
                _add_span(self._spans, span)
        self._held, self._held_spans = [], []

    def take(self) -> str:
        text = "".join(self._ready)
        self._ready = []
        return text

    def take_spans(self) -> list[Span]:
        spans, self._spans = self._spans, []
        return spans


def _add_span(spans: list[Span], span: Span) -> None:
    """Those that touch become one: nobody may ever ask for them."""
    if spans and spans[-1][1] == span[0]:
        span = (spans.pop()[0], span[1])
    spans.append(span)


def _as_object(arguments: str) -> str | None:
    """Arguments as the text of a JSON object; None if they are none.

    Some models write none where there are none, and some write the object as a string. What `copy_json` has copied is
    JSON, so that its first character says what it is.
    """
    first = arguments[:1]
    if first == "{":
        return arguments
    if first == '"':
        return _inner_object(str(json.loads(arguments)))
    return "{}" if arguments in ("", "null") else None


def _inner_object(text: str) -> str | None:
    try:
        return text if isinstance(json.loads(text), dict) else None
    except (ValueError, RecursionError):
        return None
