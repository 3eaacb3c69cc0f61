"""The two ends of the duplex channel between the API process and one worker (ZeroMQ PAIR over ipc://).

The parent listens before it starts the worker, so that the worker connects at once. Queues are unbounded here on
purpose: the parent limits the requests that a model holds, and each request's output is bounded by its own limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import zmq
import zmq.asyncio

from server.workers.messages import (
    FromWorker,
    Heartbeat,
    ToWorker,
    encoder,
    from_worker_decoder,
    to_worker_decoder,
)

HEARTBEAT_INTERVAL_S = 0.5


class ParentChannel:
    """The API process's end. Used from its event loop only."""

    def __init__(self, context: zmq.asyncio.Context, endpoint: str) -> None:
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.set_hwm(0)
        self._socket.bind(endpoint)

    def send(self, message: ToWorker) -> bool:
        """Hand a message over, without waiting; False if no worker is connected to take it."""
        # NOTE: without NOBLOCK this would wait for a peer, and a worker that has died never comes back. With it the
        # future is done already.
        return asyncio.ensure_future(self._socket.send(encoder.encode(message), zmq.NOBLOCK)).exception() is None

    async def receive(self) -> FromWorker:
        """Wait for the next message."""
        # NOTE: while messages are there, ZeroMQ hands out futures that are done, and awaiting those lets nobody else
        # run: a busy worker would hold the event loop for as long as it talks.
        await asyncio.sleep(0)
        return from_worker_decoder.decode(await self._socket.recv())

    def close(self) -> None:
        self._socket.close()


class ChildChannel:
    """The worker's end: a thread that owns the socket, so that compute threads never wait for it.

    Args:
        on_message: Called on the channel's thread for each message; must return at once.
        heartbeat: Called on the channel's thread twice a second.
    """

    def __init__(
        self, endpoint: str, *, on_message: Callable[[ToWorker], None], heartbeat: Callable[[], Heartbeat]
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._heartbeat = heartbeat
        self._outbox: deque[FromWorker] = deque()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, message: FromWorker) -> None:
        """Queue a message; any thread. Order is kept per sending thread."""
        self._outbox.append(message)
        self._wake()

    def close(self) -> None:
        """Send what is queued, then end the thread. What is sent later is lost. Safe to call twice."""
        self._is_closing = True
        self._wake()
        self._thread.join()
        self._wake_sender.close()
        self._wake_receiver.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed
            self._wake_sender.send(b"\0")

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
            pair.set_hwm(0)
            pair.setsockopt(zmq.LINGER, 1000)
            pair.connect(self._endpoint)
            poller = zmq.Poller()
            poller.register(pair, zmq.POLLIN)
            poller.register(self._wake_receiver, zmq.POLLIN)
            next_heartbeat = time.monotonic()
            while not self._is_closing:
                wait_s = max(0.0, next_heartbeat - time.monotonic())
                ready = dict(poller.poll(int(wait_s * 1000)))
                if self._wake_receiver.fileno() in ready:
                    self._wake_receiver.recv(4096)
                self._receive_all(pair)
                self._send_all(pair)
                if time.monotonic() >= next_heartbeat:
                    pair.send(encoder.encode(self._heartbeat()))
                    next_heartbeat = time.monotonic() + HEARTBEAT_INTERVAL_S
            self._send_all(pair)

    def _receive_all(self, pair: zmq.Socket[bytes]) -> None:
        while pair.poll(0):
            self._on_message(to_worker_decoder.decode(pair.recv()))

    def _send_all(self, pair: zmq.Socket[bytes]) -> None:
        while self._outbox:
            pair.send(encoder.encode(self._outbox.popleft()))
