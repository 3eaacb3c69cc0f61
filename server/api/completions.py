"""`POST /v1/completions`, as one JSON answer or as a stream of chunks; one choice for each prompt."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import RequestRecord, record_of
from server.api.schemas.completions import CompletionRequest
from server.api.sse import PING, EventStream, sse_data
from server.api.usage import total_usage, usage_body
from server.services.completions import CompletionBatch, CompletionService
from server.services.generation import Answer
from server.types import Delta, Finished, Started, Usage


class CompletionEndpoint:
    def __init__(self, service: CompletionService, body: JsonBody, *, fingerprint: str) -> None:
        self._service = service
        self._body = body
        self._fingerprint = fingerprint

    async def create(self, request: Request) -> Response:
        completion = await self._body.read(request, CompletionRequest)
        record = record_of(request)
        record.model = completion.model
        batch = self._service.generate(
            completion.model, completion.prompt, sampling=completion.sampling(), urgency=completion.urgency()
        )
        record.generation_id = batch.id
        head = {
            "id": batch.id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": batch.model_id,
            "system_fingerprint": self._fingerprint,
        }
        if completion.stream:
            return EventStream(_chunks(batch, head, record, include_usage=completion.stream_options.include_usage))
        answers = await run_while_connected(request.receive, _collect(batch))
        _note_endings(record, [answer.ending for answer in answers])
        return JsonResponse(_completion(head, answers))


async def _collect(batch: CompletionBatch) -> list[Answer]:
    answers = [Answer() for _ in range(batch.num_prompts)]
    async with aclosing(batch.events) as events:
        async for index, event in events:
            answers[index].add(event)
    return answers


def _completion(head: dict[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    choices = [_choice(index, answer.text, answer.ending.reason) for index, answer in enumerate(answers)]
    return {**head, "choices": choices, "usage": usage_body(total_usage(answer.ending.usage for answer in answers))}


async def _chunks(
    batch: CompletionBatch, head: dict[str, Any], record: RequestRecord, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    if include_usage:
        head = {**head, "usage": None}  # as OpenAI: null in every chunk but the last
    num_unaccepted = batch.num_prompts
    endings: list[Finished] = []
    async with aclosing(batch.events) as events:
        async for index, event in events:
            match event:
                case Started():
                    num_unaccepted -= 1
                    if num_unaccepted == 0:
                        yield PING  # sends the headers: all prompts are accepted
                case Delta():
                    yield sse_data({**head, "choices": [_choice(index, event.text)]})
                case Finished():
                    endings.append(event)
                    yield sse_data({**head, "choices": [_choice(index, "", event.reason)]})
    usage = _note_endings(record, endings)
    if include_usage:
        yield sse_data({**head, "choices": [], "usage": usage_body(usage)})


def _choice(index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _note_endings(record: RequestRecord, endings: Sequence[Finished]) -> Usage:
    record.usage = total_usage(ending.usage for ending in endings)
    record.finish_reason = endings[0].reason if len(endings) == 1 else None
    return record.usage
