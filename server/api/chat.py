"""`POST /v1/chat/completions`, as one JSON answer or as a stream of chunks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.answer_json import delta_bodies, message_body
from server.api.body import JsonBody
from server.api.citations import citations_body, sources_body
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import RequestRecord, record_of
from server.api.schemas.chat import ChatRequest
from server.api.sse import EventStream, sse_data
from server.api.tenant import tenant_of
from server.api.usage import usage_body
from server.services.chat import ChatService
from server.services.generation import Answer, Generation
from server.services.grounding import Cited, Sourced
from server.types import Delta, Finished, Started


class ChatEndpoint:
    def __init__(self, service: ChatService, body: JsonBody, *, fingerprint: str) -> None:
        self._service = service
        self._body = body
        self._fingerprint = fingerprint

    async def create(self, request: Request) -> Response:
        chat = await self._body.read(request, ChatRequest)
        record = record_of(request)
        record.model = chat.model
        generation = self._service.generate(
            chat.model,
            chat.to_prompt(),
            sampling=chat.sampling(),
            grammar=chat.text_grammar(),
            urgency=chat.urgency(),
            tenant=tenant_of(request),
            grounding=chat.grounding(),
        )
        record.generation_id = generation.id
        if chat.stream:
            head = self._head(generation, "chat.completion.chunk")
            return EventStream(_chunks(generation, head, record, include_usage=chat.stream_options.include_usage))
        answer = await run_while_connected(request.receive, _collect(generation, record))
        return JsonResponse(_completion(self._head(generation, "chat.completion"), answer))

    def _head(self, generation: Generation, kind: str) -> dict[str, Any]:
        return {
            "id": generation.id,
            "object": kind,
            "created": int(time.time()),
            "model": generation.model_id,
            "service_tier": "default",
            "system_fingerprint": self._fingerprint,
        }


async def _collect(generation: Generation, record: RequestRecord) -> Answer:
    answer = Answer()
    async with aclosing(generation.events) as events:
        async for event in events:
            answer.add(event)
            record.note(event)
    return answer


def _completion(head: dict[str, Any], answer: Answer) -> dict[str, Any]:
    message = message_body(answer)
    if answer.sourced and answer.cited:
        citations = citations_body(answer.cited, answer.sourced.sources)
        message |= {**citations, "x": {**sources_body(answer.sourced), **citations["x"]}}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.ending.reason}
    return {**head, "choices": [choice], "usage": usage_body(answer.ending.usage)}


async def _chunks(
    generation: Generation, head: dict[str, Any], record: RequestRecord, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The role first, then what the model says, then why it stopped, then the usage if asked for.

    In a grounded answer, the sources stand before what the model says, and the citations behind it, each in one chunk:
    the openai SDK puts chunks together, and would take the parts of a list for changes of its items.
    """
    if include_usage:
        head = {**head, "usage": None}  # as OpenAI: null in every chunk but the last

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse_data({**head, "choices": [choice]})

    sourced = Sourced()
    ending: Finished | None = None
    async with aclosing(generation.events) as events:
        async for event in events:
            record.note(event)
            match event:
                case Started():
                    yield chunk({"role": "assistant", "content": "", "refusal": None})
                case Sourced():
                    sourced = event
                    yield chunk({"x": sources_body(event)})
                case Cited():
                    yield chunk(citations_body(event, sourced.sources))
                case Delta():
                    for delta in delta_bodies(event):
                        yield chunk(delta)
                case Finished():
                    ending = event
                    yield chunk({}, event.reason)
    ending = Answer(finished=ending).ending
    if include_usage:
        yield sse_data({**head, "choices": [], "usage": usage_body(ending.usage)})
