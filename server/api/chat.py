"""`POST /v1/chat/completions`, as one JSON answer or as a stream of chunks; `n` choices."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.access import allowed_grounding
from server.api.answer_json import delta_bodies, message_body
from server.api.body import JsonBody
from server.api.citations import citations_body, sources_body
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.logprobs import chat_logprobs
from server.api.record import RequestRecord, note_endings, record_of
from server.api.schemas.chat import ChatRequest
from server.api.sse import EventStream, sse_data
from server.api.tenant import caller_of, tenant_of
from server.api.timings import timings_body
from server.api.usage import usage_body
from server.services.chat import ChatService
from server.services.generation import Answer, Generation
from server.services.grounding import Cited, Sourced
from server.services.merge import merge
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
            grounding=allowed_grounding(caller_of(request), chat.grounding()),
            prediction=chat.prediction.content if chat.prediction else "",
            num_choices=chat.n,
        )
        record.generation_id = generation.id
        if chat.stream:
            head = self._head(generation, "chat.completion.chunk")
            return EventStream(_chunks(generation, head, record, chat))
        answers = await run_while_connected(request.receive, _collect(generation, record))
        return JsonResponse(_completion(self._head(generation, "chat.completion"), answers, record, chat))

    def _head(self, generation: Generation, kind: str) -> dict[str, Any]:
        return {
            "id": generation.id,
            "object": kind,
            "created": int(time.time()),
            "model": generation.model_id,
            "service_tier": "default",
            "system_fingerprint": self._fingerprint,
        }


async def _collect(generation: Generation, record: RequestRecord) -> list[Answer]:
    answers = [Answer() for _ in generation.streams]
    async with aclosing(merge(generation.streams)) as events:
        async for index, event in events:
            answers[index].add(event)
            record.note(event)
    return answers


def _completion(
    head: dict[str, Any], answers: list[Answer], record: RequestRecord, wanted: ChatRequest
) -> dict[str, Any]:
    endings = [answer.ending for answer in answers]
    usage = note_endings(record, endings, num_siblings=len(answers))
    choices = [_whole_choice(index, answer, wanted) for index, answer in enumerate(answers)]
    timings = {"timings": timings_body(endings, usage)} if wanted.timings else {}
    return {**head, "choices": choices, "usage": usage_body(usage), **timings}


def _whole_choice(index: int, answer: Answer, wanted: ChatRequest) -> dict[str, Any]:
    message = message_body(answer)
    if answer.sourced and answer.cited:
        citations = citations_body(answer.cited, answer.sourced.sources)
        message |= {**citations, "x": {**sources_body(answer.sourced), **citations["x"]}}
    logprobs = chat_logprobs(answer.logprobs) if wanted.logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer.ending.reason}


async def _chunks(
    generation: Generation, head: dict[str, Any], record: RequestRecord, wanted: ChatRequest
) -> AsyncGenerator[bytes, None]:
    """Of each choice the role first, then what the model says, then why it stopped. At the end usage and timings, if
    asked for.

    In a grounded answer, the sources stand before what the model says, and the citations behind it, each in one chunk:
    the openai SDK puts chunks together, and would take the parts of a list for changes of its items.
    """
    include_usage = wanted.stream_options.include_usage
    if include_usage:
        head = {**head, "usage": None}  # as OpenAI: null in every chunk but the last

    def chunk(
        index: int, delta: dict[str, Any], finish_reason: str | None = None, *, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return sse_data({**head, "choices": [choice]})

    answers = [Answer() for _ in generation.streams]
    async with aclosing(merge(generation.streams)) as events:
        async for index, event in events:
            record.note(event)
            match event:
                case Started():
                    yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
                case Sourced():
                    answers[index].add(event)
                    yield chunk(index, {"x": sources_body(event)})
                case Cited():
                    sourced = answers[index].sourced or Sourced()
                    yield chunk(index, citations_body(event, sourced.sources))
                case Delta():
                    for delta in delta_bodies(event):
                        has_logprobs = wanted.logprobs and "content" in delta
                        logprobs = chat_logprobs(event.logprobs) if has_logprobs else None
                        yield chunk(index, delta, logprobs=logprobs)
                case Finished():
                    answers[index].add(event)
                    if all(answer.finished for answer in answers):  # noted now: many clients leave after these words
                        usage = note_endings(record, [each.ending for each in answers], num_siblings=len(answers))
                    yield chunk(index, {}, event.reason)
    endings = [answer.ending for answer in answers]
    last: dict[str, Any] = {}
    if include_usage:
        last["usage"] = usage_body(usage)
    if wanted.timings:
        last["timings"] = timings_body(endings, usage)
    if last:
        yield sse_data({**head, "choices": [], **last})
