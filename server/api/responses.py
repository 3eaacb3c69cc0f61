"""`/v1/responses`: answer, as one JSON answer or as a stream of events; keep answers, and go on from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

import orjson
from starlette.requests import Request
from starlette.responses import Response

from server.api.access import allowed_grounding
from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.errors import INVALID, error_body
from server.api.json_response import JsonResponse
from server.api.query import list_body, read_query
from server.api.record import RequestRecord, record_of
from server.api.response_writer import Body, Event, ResponseWriter
from server.api.schemas.response_items import ItemReference, StoredInputItem, item_body, read_stored, to_messages
from server.api.schemas.responses import InputItemsQuery, ResponseRequest, RetrieveQuery
from server.api.sse import PING, EventStream, StreamStyle, sse_data, sse_named
from server.api.tenant import caller_of, tenant_of
from server.errors import InvalidRequest, ObjectNotFound
from server.services.chat import ChatService
from server.services.generation import Generation
from server.services.responses import ResponseService
from server.storage.response_store import StoredItem, StoredResponse
from server.types import ChatMessage

STYLE = StreamStyle(PING, b"", sse_data)
"""The last event says by itself that it is the last, and what went wrong."""


class ResponseEndpoint:
    def __init__(self, chat: ChatService, responses: ResponseService, body: JsonBody) -> None:
        self._chat = chat
        self._responses = responses
        self._body = body

    async def create(self, request: Request) -> Response:
        asked = await self._body.read(request, ResponseRequest)
        record, tenant = record_of(request), tenant_of(request)
        record.model = asked.model
        if asked.store:
            self._responses.check_open()
        inputs, conversation = await self._conversation(asked, tenant)
        with _in_own_words(asked):
            generation = self._chat.generate(
                asked.model,
                asked.to_prompt(conversation),
                sampling=asked.sampling(),
                grammar=asked.text.to_grammar(),
                urgency=asked.urgency(),
                tenant=tenant,
                grounding=allowed_grounding(caller_of(request), asked.grounding()),
            )
        record.generation_id = generation.id
        writer = ResponseWriter(_head(asked, generation), with_results=asked.wants_results)
        events = self._events(asked, generation, writer, record, tenant=tenant, inputs=inputs)
        if asked.stream:
            return EventStream(_as_stream(events, writer, request), style=STYLE)
        ending = await run_while_connected(request.receive, _last(events))
        return JsonResponse(ending["response"])

    async def get(self, request: Request) -> Response:
        read_query(request, RetrieveQuery)
        body, outputs = await self._responses.get(tenant_of(request), request.path_params["response_id"])
        return JsonResponse({**orjson.loads(body), "output": [orjson.loads(each) for each in outputs]})

    async def delete(self, request: Request) -> Response:
        response_id = request.path_params["response_id"]
        await self._responses.delete(tenant_of(request), response_id)
        return JsonResponse({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        wanted, response_id = read_query(request, InputItemsQuery), request.path_params["response_id"]
        bodies, has_more = await self._responses.inputs(
            tenant_of(request), response_id, limit=wanted.limit, order=wanted.order, after=wanted.after
        )
        return JsonResponse(list_body([orjson.loads(body) for body in bodies], has_more=has_more))

    # ---- what was said before

    async def _conversation(
        self, asked: ResponseRequest, tenant: str
    ) -> tuple[list[StoredInputItem], tuple[ChatMessage, ...]]:
        """Return the items of `input`, and the conversation that they end."""
        history: list[str] = []
        if asked.previous_response_id is not None:
            history = await self._responses.conversation(tenant, asked.previous_response_id)
        inputs = await self._without_references(asked, tenant)

        def read() -> tuple[ChatMessage, ...]:
            return tuple(to_messages([*read_stored([orjson.loads(body) for body in history]), *inputs]))

        # Long conversations take a while; short ones are worth no thread.
        messages = await asyncio.to_thread(read) if history else read()
        if not messages:
            raise InvalidRequest("no item of input says anything to the model; send a message", param="input")
        return inputs, messages

    async def _without_references(self, asked: ResponseRequest, tenant: str) -> list[StoredInputItem]:
        """Put items in place of what refers to them. Raises ObjectNotFound."""
        wanted = [item.id for item in asked.input if isinstance(item, ItemReference)]
        bodies = await self._responses.items(tenant, wanted) if wanted else {}
        items: list[StoredInputItem] = []
        for index, item in enumerate(asked.input):
            if not isinstance(item, ItemReference):
                items.append(item)
            elif item.id in bodies:
                items += read_stored([orjson.loads(bodies[item.id])])
            else:
                raise ObjectNotFound(f"no item with id {item.id!r} is stored", param=f"input[{index}].id")
        return items

    # ---- the answer

    async def _events(
        self,
        asked: ResponseRequest,
        generation: Generation,
        writer: ResponseWriter,
        record: RequestRecord,
        *,
        tenant: str,
        inputs: Sequence[StoredInputItem],
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a response. The last one, which has all of it, comes when it is kept."""
        with _in_own_words(asked):
            async with aclosing(generation.events) as events:
                async for event in events:
                    record.note(event)
                    for told in writer.write(event):
                        yield told
        ending = writer.end()
        if asked.store:
            await self._responses.keep(tenant, await asyncio.to_thread(_stored, ending["response"], inputs))
        yield ending


def _head(asked: ResponseRequest, generation: Generation) -> Body:
    """All of a response that does not come from the generation, with what is not known yet as `null`."""
    return {
        "id": f"resp_{generation.id.rpartition('-')[2]}",  # so that one can be found in the log
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "model": generation.model_id,
        "error": None,
        "incomplete_details": None,
        "usage": None,
        **asked.body(),
    }


def _stored(response: Body, inputs: Sequence[StoredInputItem]) -> StoredResponse:
    body = {name: value for name, value in response.items() if name != "output"}
    return StoredResponse(
        id=response["id"],
        previous_id=response["previous_response_id"],
        created_at=response["created_at"],
        body=orjson.dumps(body).decode(),
        inputs=tuple(_stored_item(item_body(item)) for item in inputs),
        outputs=tuple(map(_stored_item, response["output"])),
    )


def _stored_item(body: Body) -> StoredItem:
    return StoredItem(body["id"], orjson.dumps(body).decode())


async def _last(events: AsyncGenerator[Event, None]) -> Event:
    last: Event = {}
    async with aclosing(events):
        async for event in events:
            last = event
    return last


async def _as_stream(
    events: AsyncGenerator[Event, None], writer: ResponseWriter, request: Request
) -> AsyncGenerator[bytes, None]:
    """Write events out. An error before the first is raised, one after it becomes the last event."""
    num_sent = 0
    async with aclosing(events):
        try:
            async for event in events:
                yield _sse(event, num_sent)
                num_sent += 1
        except Exception as exc:  # the status is sent: the error can only be an event
            if num_sent == 0:
                raise
            yield _sse(writer.fail(_failure(exc, request)), num_sent)


def _sse(event: Event, number: int) -> bytes:
    return sse_named({**event, "sequence_number": number})


def _failure(exc: Exception, request: Request) -> Body:
    """An error as a response has it: OpenAI's codes are few, so ours stands in `x`."""
    _, body = error_body(exc, request.scope)
    error = body["error"]
    theirs = "invalid_prompt" if error["type"] == INVALID else "server_error"
    return {**error, "code": theirs, "x": {"code": error["code"]}}


@contextmanager
def _in_own_words(asked: ResponseRequest) -> Iterator[None]:
    """The layers below know the fields of chat: errors are to name those of this request."""
    try:
        yield
    except InvalidRequest as exc:
        exc.param = asked.param_of(exc.param)
        raise
