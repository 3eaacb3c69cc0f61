"""Responses kept in a real database, and what the openai SDK says their events and bodies are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from server.services.library import LibraryDoor
from server.services.responses import ResponseService
from server.storage.database import Database
from server.storage.response_store import ResponseStore

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@asynccontextmanager
async def open_responses(folder: Path, **options: Any) -> AsyncIterator[ResponseStore]:
    """A store of its own; `options` are those of `ResponseStore`."""
    database = await asyncio.to_thread(Database.open, folder / "hearth.sqlite")
    try:
        yield ResponseStore(database, **options)
    finally:
        await asyncio.to_thread(database.close)


def service_over(store: Any) -> ResponseService:
    door, library = LibraryDoor(), SimpleNamespace(responses=store)
    door.open(library)  # type: ignore[arg-type]  # all of it that is asked for
    return ResponseService(door)


def check_response(body: dict[str, Any]) -> dict[str, Any]:
    """Return a response that is one by the SDK's types."""
    Response.model_validate(body, strict=True)
    return body


def check_event(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event that is one by the SDK's types, without fields that they do not know."""
    typed = _EVENT.validate_python(event)
    assert typed.type == event["type"]
    assert set(event) <= set(type(typed).model_fields)
    return event


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each checked, with the name that stands before it and its number."""
    assert response.status_code == 200, response.text
    events = []
    for number, block in enumerate(response.text.removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        event = check_event(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        events.append(event)
    return events
