"""The server's end of one connection: uvicorn's, made fit for clients that are slow or hostile.

uvicorn and llhttp read requests and write answers. Added is what no ASGI application can see to: a request must come,
and an answer be taken, in time; heads are bounded, and those refused that others might read in another way; connections
are counted. Knows nothing of what is asked, but which paths take uploads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.api.refusal import Refusal
from server.api.request_head import MAX_HEAD_BYTES, check_head, check_size, headers_too_large

logger = logging.getLogger(__name__)

MIN_UPLOAD_BYTES_PER_S = 1024
"""An upload may take hours, but has to get on: a thousand that each hold a connection and a file for ever must not."""

SEND_STALL_S = 60.0
"""A client that takes nothing of its answer for so long is gone, or might as well be."""

SURPLUS_TIMEOUT_S = 5.0
"""How long a connection above the limit may take to say what it will not get."""

MAX_PIPELINED = 16
"""Requests that wait on one connection while another one is answered. A read may bring thousands of them."""

LINGER_S = 2.0
"""After an answer to what is no request: closing at once, with bytes unread, could take the answer away again."""

_OF_AN_UPGRADE = (b"connection", b"upgrade", b"http2-settings")


@dataclass(frozen=True)
class ConnectionBounds:
    """What a connection may take.

    Attributes:
        receive_timeout_s: For a whole request from its first byte; of an upload, for each `MIN_UPLOAD_BYTES_PER_S`
            times so many bytes.
        max_connections: Those above get 503 for anything but `always_open`.
        upload_paths: Whose bodies may take longer.
        always_open: Paths that are answered on every connection.
    """

    receive_timeout_s: float
    max_connections: int
    upload_paths: Collection[str] = ()
    always_open: Collection[str] = ()


class HttpProtocol(HttpToolsProtocol):
    """One connection. What it refuses is answered in its turn, and is the last that it reads.

    A request is being received from its first byte until `on_message_complete`; in its head until
    `on_headers_complete`. `cycle`, uvicorn's, is the newest request and its answer; others may be before it: one that
    is being answered, and the `pipeline`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: ConnectionBounds,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = bounds
        self.url = b""
        self.headers = []
        self._answered: RequestResponseCycle | None = None  # or being so
        self._is_surplus = False
        self._is_deaf = False
        self._is_receiving = False
        self._is_in_head = True  # also between requests
        self._is_upload = False
        self._num_head_bytes = 0
        self._num_bytes = 0  # since the clock was started
        self._receive_timeout_s = bounds.receive_timeout_s
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._num_unsent = 0

    # ---- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._is_surplus = len(self.connections) > self._bounds.max_connections
        if self._is_surplus:
            self._receive_timeout_s = min(self._receive_timeout_s, SURPLUS_TIMEOUT_S)
        self._start_receive_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_receive_timer()
        if self._send_timer is not None:
            self._send_timer.cancel()
        super().connection_lost(exc)

    # ---- receiving

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        self._num_bytes += len(data)
        try:
            self._read(data)
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserCallbackError as exc:
            if not isinstance(exc.__context__, Refusal):
                raise
            self._refuse(exc.__context__)
        except httptools.HttpParserError as exc:
            self._refuse(Refusal(HTTPStatus.BAD_REQUEST, f"this is no HTTP/1.1 request: {exc}"))
        else:
            # Besides a request, what may be left of one that was answered early: nobody would wait for the next then.
            if self._receive_timer is None and (self._is_receiving or self._last_unanswered() is None):
                self._start_receive_timer()

    def _read(self, data: bytes) -> None:
        """Have the bytes parsed, those of a head no further than it may go."""
        while data:
            piece = data
            if self._is_in_head:
                piece = data[: MAX_HEAD_BYTES - self._num_head_bytes]
                self._num_head_bytes += len(piece)
            data = data[len(piece) :]
            if not piece:
                check_size(self.url, self.headers)  # perhaps it is a request line that does not end
                raise headers_too_large()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as exc:
                data = self._head_without_upgrade() + piece[exc.args[0] :] + data

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_receiving = True

    def on_headers_complete(self) -> None:
        if self._is_upgrade:
            return
        method = self.parser.get_method()
        check_head(method, self.url, self.parser.get_http_version(), self.headers)
        path = self.url.partition(b"?")[0].decode("ascii")
        if self._is_surplus and path not in self._bounds.always_open:
            most = self._bounds.max_connections
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"the server has {most} connections, its limit; try again")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{MAX_PIPELINED} requests wait on this connection; open others")
        self._is_in_head = False
        self._is_upload = method == b"POST" and path in self._bounds.upload_paths
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        super().on_message_complete()
        self._is_receiving = False
        self._begin_head()
        self._stop_receive_timer()

    @property
    def _is_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        """The head that offers another protocol, without the offer: Java's clients make one with every first request.

        The parser takes what follows for that protocol, so there is a new one; as far as the application can tell,
        nothing has come yet.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] not in _OF_AN_UPGRADE]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._begin_head()
        return b"\r\n".join([*lines, b"", b""])

    def _begin_head(self) -> None:
        self._is_in_head = True
        self._num_head_bytes = 0

    def _start_receive_timer(self) -> None:
        self._num_bytes = 0
        self._receive_timer = self.loop.call_later(self._receive_timeout_s, self._on_receive_timeout)

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _on_receive_timeout(self) -> None:
        if self.transport.is_closing():
            return
        timeout_s = self._receive_timeout_s
        is_fast_enough = self._is_upload and self._num_bytes >= MIN_UPLOAD_BYTES_PER_S * timeout_s
        if self.flow.read_paused or is_fast_enough:  # paused: it is us who do not read
            self._start_receive_timer()
        elif self._is_receiving:
            self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, f"the request did not arrive within {timeout_s:g} s"))
        else:
            self.transport.close()  # connected, and said nothing

    # ---- refusing

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more, and answer what is no request after the requests before it.

        It is no answer to any of those, so while there are some, the connection just ends with theirs.
        """
        self._is_deaf = True
        self._stop_receive_timer()
        extra = {"status": refusal.status, "reason": refusal.message, "request_id": refusal.request_id}
        logger.info("request refused", extra=extra)
        broken = None if self._is_in_head else self.cycle
        if broken is not None and self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
            broken = None
        if broken is not None and broken.response_started:
            self.transport.close()
        elif broken is not None:
            broken.disconnected = True
            broken.message_event.set()
            self._answer(refusal)
        elif unanswered := self._last_unanswered():
            unanswered.keep_alive = False
        else:
            self._answer(refusal)

    def _last_unanswered(self) -> RequestResponseCycle | None:
        if self.pipeline:
            return self.pipeline[0][0]
        return self._answered if self._answered is not None and not self._answered.response_complete else None

    def _answer(self, refusal: Refusal) -> None:
        self.transport.write(refusal.answer())
        self.transport.write_eof()
        self._receive_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    # ---- sending

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_receiving:
            self._unset_keepalive_if_required()  # the next request has its own time
        self._watch_sending()  # the end of an answer waits in a buffer, where closing would leave it for ever

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _watch_sending(self) -> None:
        """Drop the connection when what it has to send stays as it is for `SEND_STALL_S`."""
        if self._send_timer is None and (num_unsent := self.transport.get_write_buffer_size()):
            self._num_unsent = num_unsent
            self._send_timer = self.loop.call_later(SEND_STALL_S, self._on_send_timeout)

    def _on_send_timeout(self) -> None:
        self._send_timer = None
        if self.transport.get_write_buffer_size() == self._num_unsent:
            logger.info("client does not read", extra={"unsent_bytes": self._num_unsent})
            self.transport.abort()
        else:
            self._watch_sending()
