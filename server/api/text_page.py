"""The text of a document as the page that OpenAI makes of it, sent piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from starlette.responses import StreamingResponse

PIECE_CHARS = 1 << 18
"""What is made JSON at a time. All of a long text would keep the event loop from everything else for 0.1 s, and its
client from nothing: who reads slowly gets the next piece later."""


class TextPage(StreamingResponse):
    """A page of one text, which is the last."""

    def __init__(self, text: str) -> None:
        super().__init__(_write(text), media_type="application/json")


async def _write(text: str) -> AsyncIterator[bytes]:
    yield b'{"object":"vector_store.file_content.page","data":[{"type":"text","text":"'
    for start in range(0, len(text), PIECE_CHARS):
        yield orjson.dumps(text[start : start + PIECE_CHARS])[1:-1]  # without its quotation marks
    yield b'"}],"has_more":false,"next_page":null}'
