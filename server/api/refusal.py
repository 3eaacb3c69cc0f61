"""What is refused before it is a request that the application could see: why, and the answer as bytes."""

from __future__ import annotations

import uuid
from http import HTTPStatus

import orjson

from server.api.errors import HTTP_CODES, INVALID, SERVER
from server.errors import Overloaded

RETRY_AFTER_S = 1
"""What clients are told that found no free connection: these come and go quickly."""


class Refusal(Exception):
    """Bytes that are no request, or one that came too slowly, or one connection too many.

    Attributes:
        request_id: In the answer and in the log.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = Overloaded.code if status == HTTPStatus.SERVICE_UNAVAILABLE else HTTP_CODES[status]
        self.request_id = f"req-{uuid.uuid4().hex}"

    def answer(self) -> bytes:
        """The whole answer; the connection ends with it."""
        kind = SERVER if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else INVALID
        body = orjson.dumps({"error": {"message": self.message, "type": kind, "param": None, "code": self.code}})
        head = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {self.request_id}",
            f"request-id: {self.request_id}",
            *([f"retry-after: {RETRY_AFTER_S}"] if kind == SERVER else []),
            "connection: close",
        ]
        return "\r\n".join([*head, "", ""]).encode() + body
