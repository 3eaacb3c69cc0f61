"""Anthropic's Messages API: `POST /v1/messages`, whole or as a stream, and the tokens that a request would have."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.access import allowed_grounding
from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.message_events import MessageEvents, WholeMessage
from server.api.record import RequestRecord, record_of
from server.api.schemas.messages import CountTokensRequest, MessageRequest
from server.api.sse import ANTHROPIC_STYLE, EventStream, sse_named
from server.api.tenant import caller_of, tenant_of
from server.errors import InternalError
from server.services.chat import ChatService
from server.services.generation import Generation
from server.types import Finished


class MessageEndpoint:
    def __init__(self, service: ChatService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, MessageRequest)
        record = record_of(request)
        record.model = wanted.model
        generation = self._service.generate(
            wanted.model,
            wanted.to_prompt(),
            sampling=wanted.sampling(),
            grammar=wanted.text_grammar(),
            tenant=tenant_of(request),
            grounding=allowed_grounding(caller_of(request), wanted.grounding()),
        )
        record.generation_id = generation.id
        events = _events(generation, wanted, record)
        if wanted.stream:
            return EventStream(_chunks(events), style=ANTHROPIC_STYLE)
        return JsonResponse(await run_while_connected(request.receive, _collect(events)))

    async def count_tokens(self, request: Request) -> Response:
        wanted = await self._body.read(request, CountTokensRequest)
        record_of(request).model = wanted.model
        counting = self._service.count_tokens(wanted.model, wanted.to_prompt())
        num_tokens = await run_while_connected(request.receive, counting)
        return JsonResponse({"input_tokens": num_tokens})


async def _events(
    generation: Generation, wanted: MessageRequest, record: RequestRecord
) -> AsyncGenerator[dict[str, Any], None]:
    writer = MessageEvents(
        f"msg_{generation.id.rpartition('-')[2]}",
        generation.model_id,
        max_tokens=wanted.max_tokens,
        shows_thinking=wanted.shows_thinking,
        num_documents=wanted.num_documents,
    )
    has_ended = False
    async with aclosing(generation.events) as events:
        async for event in events:
            record.note(event)
            has_ended = isinstance(event, Finished)
            for said in writer.say(event):
                yield said
    if not has_ended:
        raise InternalError("the generation stopped without an ending")


async def _chunks(events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield sse_named(event)


async def _collect(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    message = WholeMessage()
    async with aclosing(events):
        async for event in events:
            message.add(event)
    return message.body
