"""Makes a response of the events of a generation: the one place that does, for whole answers and for streams.

    Started     response.created, response.in_progress
    Sourced     an item file_search_call
    Delta       items reasoning, message, function_call: output_item.added, deltas, output_item.done
    Cited       annotations of the message
    Finished    whatever is open ends; then `end` gives the last event, with the whole response

A whole answer is the response in a stream's last event, so the two cannot differ.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar, Literal

from server.api.citations import annotation_body, search_body
from server.api.logprobs import text_logprobs
from server.api.schemas.response_items import new_item_id
from server.errors import InternalError
from server.rag.prompt import Source
from server.services.generation import ChatEvent
from server.services.grounding import Cited, Sourced
from server.types import Delta, Finished, Started, ToolCallDelta, Usage

Event = dict[str, Any]
Body = dict[str, Any]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ResponseWriter:
    """One response on its way. Events lack the number that a stream gives them."""

    def __init__(self, head: Body, *, with_results: bool) -> None:
        """Begin with an empty output.

        Args:
            head: All of the response that does not come from the generation.
            with_results: The sources of a search belong to its item.
        """
        self._head = head
        self._with_results = with_results
        self._items: list[_Item] = []
        self._open: list[_Item] = []
        self._sources: tuple[Source, ...] | None = None
        self._finished: Finished | None = None

    def write(self, event: ChatEvent) -> Iterator[Event]:
        """Yield what a stream says of an event."""
        match event:
            case Started():
                yield {"type": "response.created", "response": self._body("in_progress")}
                yield {"type": "response.in_progress", "response": self._body("in_progress")}
            case Sourced():
                yield from self._search(event)
            case Delta():
                yield from self._say(_Reasoning, event.reasoning)
                yield from self._say(_Message, event.text, text_logprobs(event.logprobs))
                for call in event.tool_calls:
                    yield from self._call(call)
            case Cited():
                yield from self._cite(event)
            case Finished():
                self._finished = event
                yield from self._finish(is_cut=event.reason == "length")

    def end(self) -> Event:
        """Return the last event, which has the whole response."""
        if self._finished is None:
            raise InternalError("the generation stopped without an ending")
        ending = {"completed_at": int(time.time()), "usage": usage_body(self._finished.usage)}
        if self._finished.reason == "length":
            details = {"reason": "max_output_tokens"}
            return self._ending("incomplete", {**ending, "completed_at": None, "incomplete_details": details})
        return self._ending("completed", ending)

    def fail(self, error: Body) -> Event:
        """Return the last event of a stream that an error ends."""
        for item in self._open:
            item.status = "incomplete"
        return self._ending("failed", {"error": error})

    def _ending(self, status: Literal["completed", "incomplete", "failed"], more: Body) -> Event:
        return {"type": f"response.{status}", "response": {**self._body(status), **more}}

    def _body(self, status: str) -> Body:
        return {**self._head, "status": status, "output": [item.body() for item in self._items]}

    # ---- items

    def _search(self, sourced: Sourced) -> Iterator[Event]:
        self._sources = sourced.sources
        if sourced.queries:
            yield from self._begin(_Search(len(self._items), search_body(sourced, with_results=self._with_results)))
            yield from self._close()

    def _say(self, kind: type[_TextItem], text: str, logprobs: Sequence[Body] = ()) -> Iterator[Event]:
        if text:
            item = yield from self._writable(kind)
            yield item.say(text, logprobs)

    def _writable(self, kind: type[_TextItem]) -> Generator[Event, None, _TextItem]:
        """Return the open item of a kind, which is a new one if there is none."""
        item = next((item for item in self._open if isinstance(item, kind)), None)
        if item is None:
            yield from self._close()
            item = kind(len(self._items))
            yield from self._begin(item)
        return item

    def _call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if delta.id:
            yield from self._close()
            yield from self._begin(_Call(len(self._items), delta.id, delta.name))
        call = self._open[-1]
        assert isinstance(call, _Call), "a call begins with its id and ends with the next item"
        if delta.arguments:
            yield call.say(delta.arguments)

    def _cite(self, cited: Cited) -> Iterator[Event]:
        message = next((item for item in self._open if isinstance(item, _Message)), None)
        if message is not None and self._sources is not None:
            for mark in cited.marks:
                yield message.annotate(annotation_body(mark, self._sources[mark.number - 1]))

    def _begin(self, item: _Item) -> Iterator[Event]:
        self._items.append(item)
        self._open.append(item)
        yield from item.begin()

    def _close(self) -> Iterator[Event]:
        """End what another item follows. The message of a grounded answer stays open for its citations, which come last
        and count its characters: all text goes there."""
        is_grounded = self._sources is not None
        for item in [item for item in self._open if not (is_grounded and isinstance(item, _Message))]:
            yield from item.end("completed")
            self._open.remove(item)

    def _finish(self, *, is_cut: bool) -> Iterator[Event]:
        if all(isinstance(item, _Search) for item in self._items):
            yield from self._writable(_Message)  # nothing was said; clients look for a message all the same
        for item in self._open:
            is_last = item is self._items[-1]
            yield from item.end("incomplete" if is_cut and is_last else "completed")
        self._open.clear()


class _Item:
    """One item of the output, at `index`."""

    kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, index: int) -> None:
        self.id = new_item_id(self.prefix)
        self.status: ItemStatus = "in_progress"
        self._index = index

    def body(self) -> Body:
        return {"type": self.kind, "id": self.id, "status": self.status, **self._fields()}

    def begin(self) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.body()}

    def end(self, status: ItemStatus) -> Iterator[Event]:
        self.status = status
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.body()}

    def _fields(self) -> Body:
        raise NotImplementedError

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": f"response.{kind}", "item_id": self.id, "output_index": self._index, **fields}


class _Search(_Item):
    kind, prefix = "file_search_call", "fs"

    def __init__(self, index: int, found: Body) -> None:
        super().__init__(index)
        self._found = found

    def begin(self) -> Iterator[Event]:
        """It is over before the answer begins, so everything is told at once."""
        yield from super().begin()
        for step in ("in_progress", "searching", "completed"):
            yield self._event(f"file_search_call.{step}")

    def _fields(self) -> Body:
        return self._found if self.status != "in_progress" else {"queries": [], "results": None}


class _Call(_Item):
    kind, prefix = "function_call", "fc"

    def __init__(self, index: int, call_id: str, name: str) -> None:
        super().__init__(index)
        self._call_id = call_id
        self._name = name
        self._pieces: list[str] = []

    def say(self, arguments: str) -> Event:
        self._pieces.append(arguments)
        return self._event("function_call_arguments.delta", delta=arguments)

    def end(self, status: ItemStatus) -> Iterator[Event]:
        yield self._event("function_call_arguments.done", arguments="".join(self._pieces))
        yield from super().end(status)

    def _fields(self) -> Body:
        return {"call_id": self._call_id, "name": self._name, "arguments": "".join(self._pieces)}


class _TextItem(_Item):
    """Has one part, which is added by an event of its own when the item begins."""

    event: ClassVar[str]

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._pieces: list[str] = []
        self._logprobs: list[Body] = []
        self._has_part = False

    def begin(self) -> Iterator[Event]:
        yield from super().begin()
        self._has_part = True
        yield self._event("content_part.added", content_index=0, part=self._part())

    def say(self, text: str, logprobs: Sequence[Body]) -> Event:
        self._pieces.append(text)
        self._logprobs += logprobs
        return self._event(f"{self.event}.delta", content_index=0, delta=text, **self._more(logprobs))

    def end(self, status: ItemStatus) -> Iterator[Event]:
        yield self._event(
            f"{self.event}.done", content_index=0, text="".join(self._pieces), **self._more(self._logprobs)
        )
        yield self._event("content_part.done", content_index=0, part=self._part())
        yield from super().end(status)

    def _content(self) -> list[Body]:
        return [self._part()] if self._has_part else []

    def _part(self) -> Body:
        raise NotImplementedError

    def _more(self, _logprobs: Sequence[Body]) -> Body:
        """What events of the text have besides."""
        return {}


class _Reasoning(_TextItem):
    kind, prefix, event = "reasoning", "rs", "reasoning_text"

    def _fields(self) -> Body:
        return {"summary": [], "content": self._content()}

    def _part(self) -> Body:
        return {"type": "reasoning_text", "text": "".join(self._pieces)}


class _Message(_TextItem):
    kind, prefix, event = "message", "msg", "output_text"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._annotations: list[Body] = []

    def annotate(self, annotation: Body) -> Event:
        self._annotations.append(annotation)
        place = {"content_index": 0, "annotation_index": len(self._annotations) - 1}
        return self._event("output_text.annotation.added", **place, annotation=annotation)

    def _fields(self) -> Body:
        return {"role": "assistant", "content": self._content()}

    def _part(self) -> Body:
        text, annotations = "".join(self._pieces), list(self._annotations)
        return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": list(self._logprobs)}

    def _more(self, logprobs: Sequence[Body]) -> Body:
        return {"logprobs": list(logprobs)}


def usage_body(usage: Usage) -> Body:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
