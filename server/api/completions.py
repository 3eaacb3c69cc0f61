"""`POST /v1/completions`, as one JSON answer or as a stream of chunks; `n` choices for each prompt."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.logprobs import CompletionLogprobs
from server.api.record import RequestRecord, note_endings, record_of
from server.api.schemas.completions import CompletionRequest
from server.api.sse import PING, EventStream, sse_data
from server.api.tenant import tenant_of
from server.api.timings import timings_body
from server.api.usage import usage_body
from server.services.completions import CompletionService, pick_best
from server.services.generation import Answer, Generation
from server.services.merge import merge
from server.types import Delta, Finished, Started


class CompletionEndpoint:
    def __init__(self, service: CompletionService, body: JsonBody, *, fingerprint: str) -> None:
        self._service = service
        self._body = body
        self._fingerprint = fingerprint

    async def create(self, request: Request) -> Response:
        completion = await self._body.read(request, CompletionRequest)
        record = record_of(request)
        record.model = completion.model
        generation = self._service.generate(
            completion.model,
            completion.prompts(),
            sampling=completion.sampling(),
            urgency=completion.urgency(),
            tenant=tenant_of(request),
            num_choices=completion.n,
            best_of=completion.num_candidates,
            echoes=completion.echo,
        )
        record.generation_id = generation.id
        head = {
            "id": generation.id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": generation.model_id,
            "system_fingerprint": self._fingerprint,
        }
        if completion.stream:
            return EventStream(_chunks(generation, head, record, completion))
        answers = await run_while_connected(request.receive, _collect(generation, record))
        return JsonResponse(_completion(head, answers, record, completion))


async def _collect(generation: Generation, record: RequestRecord) -> list[Answer]:
    answers = [Answer() for _ in generation.streams]
    async with aclosing(merge(generation.streams)) as events:
        async for index, event in events:
            answers[index].add(event)
            if isinstance(event, Started):
                record.note(event)
    return answers


def _completion(
    head: dict[str, Any], answers: list[Answer], record: RequestRecord, wanted: CompletionRequest
) -> dict[str, Any]:
    endings = [answer.ending for answer in answers]
    usage = note_endings(record, endings, num_siblings=wanted.num_candidates)
    best = pick_best(answers, best_of=wanted.num_candidates, num_choices=wanted.n)
    choices = [_whole_choice(index, answer, wanted) for index, answer in enumerate(best)]
    timings = {"timings": timings_body(endings, usage)} if wanted.timings else {}
    return {**head, "choices": choices, "usage": usage_body(usage), **timings}


def _whole_choice(index: int, answer: Answer, wanted: CompletionRequest) -> dict[str, Any]:
    logprobs = CompletionLogprobs().body(answer.logprobs) if wanted.logprobs is not None else None
    return _choice(index, answer.text, logprobs, answer.ending.reason)


async def _chunks(
    generation: Generation, head: dict[str, Any], record: RequestRecord, wanted: CompletionRequest
) -> AsyncGenerator[bytes, None]:
    include_usage = wanted.stream_options.include_usage
    if include_usage:
        head = {**head, "usage": None}  # as OpenAI: null in every chunk but the last
    num_unaccepted = len(generation.streams)
    answers = [Answer() for _ in generation.streams]
    writers = [CompletionLogprobs() if wanted.logprobs is not None else None for _ in answers]
    async with aclosing(merge(generation.streams)) as events:
        async for index, event in events:
            match event:
                case Started():
                    record.note(event)
                    num_unaccepted -= 1
                    if num_unaccepted == 0:
                        yield PING  # sends the headers: all prompts are accepted
                case Delta():
                    writer = writers[index]
                    logprobs = writer.body(event.logprobs) if writer else None
                    yield sse_data({**head, "choices": [_choice(index, event.text, logprobs)]})
                case Finished():
                    answers[index].add(event)
                    if all(answer.finished for answer in answers):  # noted now: many clients leave after these words
                        usage = note_endings(record, [each.ending for each in answers], num_siblings=wanted.n)
                    yield sse_data({**head, "choices": [_choice(index, "", None, event.reason)]})
    endings = [answer.ending for answer in answers]
    last: dict[str, Any] = {}
    if include_usage:
        last["usage"] = usage_body(usage)
    if wanted.timings:
        last["timings"] = timings_body(endings, usage)
    if last:
        yield sse_data({**head, "choices": [], **last})


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
