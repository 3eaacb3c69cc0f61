"""Where bodies are parsed; what they may hold is in test_hostile_bodies.py."""

from __future__ import annotations

import threading
from typing import Annotated

import orjson
import pytest
from pydantic import AfterValidator
from starlette.requests import Request
from starlette.types import Message

from server.api.body import MAX_INLINE_BYTES, JsonBody
from server.api.schemas.wire import WireModel
from server.errors import InvalidRequest

validated_in: list[threading.Thread] = []


def note_thread(text: str) -> str:
    validated_in.append(threading.current_thread())
    return text


class Noted(WireModel):
    text: Annotated[str, AfterValidator(note_thread)]


async def read(body: object) -> Noted:
    async def receive() -> Message:
        return {"type": "http.request", "body": orjson.dumps(body), "more_body": False}

    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    return await JsonBody(1 << 20).read(request, Noted)


async def test_a_large_body_is_parsed_off_the_event_loop_a_small_one_on_it() -> None:
    validated_in.clear()

    await read({"text": "small"})
    large = await read({"text": "x" * MAX_INLINE_BYTES})

    assert len(large.text) == MAX_INLINE_BYTES
    assert [thread is threading.current_thread() for thread in validated_in] == [True, False]


async def test_a_large_body_is_refused_like_a_small_one() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await read({"text": "x", "txt": "x" * MAX_INLINE_BYTES})

    assert (refusal.value.code, refusal.value.param) == ("unknown_parameter", "txt")
