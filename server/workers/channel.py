"""The two ends of the duplex channel between the API process and one worker (ZeroMQ over ipc://).

A pair of sockets for each direction, because a ZeroMQ socket is one thread's at a time: so a worker's threads send
under a lock, without waiting for the thread that listens. The parent binds before it starts the worker, so that the
worker connects at once. Queues are unbounded here on purpose: the parent limits the requests that a model holds, and
each request's output is bounded by its own limits.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import msgspec
import zmq

from server import faults
from server.workers.messages import (
    FromWorker,
    Heartbeat,
    ToWorker,
    encoder,
    from_worker_decoder,
    to_worker_decoder,
)

HEARTBEAT_INTERVAL_S = 0.5

_MESSAGES_PER_TURN = 4
"""Taken at a time: a worker that talks much must not hold the event loop for as long as it talks."""

_LAST_WORDS_MS = 1000
"""How long a worker that ends waits for the parent to take what it has said."""


class ParentChannel:
    """The API process's end. Used from its event loop only."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._to_worker, self._from_worker = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        for each, address in zip((self._to_worker, self._from_worker), _addresses(endpoint), strict=True):
            each.setsockopt(zmq.LINGER, 0)
            each.set_hwm(0)
            each.bind(address)
        self._on_message: Callable[[FromWorker], None] | None = None
        self._on_garbage: Callable[[msgspec.DecodeError], None] | None = None

    def send(self, message: ToWorker) -> bool:
        """Hand a message over, without waiting; False if no worker is connected to take it."""
        try:
            self._to_worker.send(encoder.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def listen(
        self, on_message: Callable[[FromWorker], None], on_garbage: Callable[[msgspec.DecodeError], None]
    ) -> None:
        """Call `on_message` on the event loop for each message from now on, those that wait already included.

        Neither may raise; `on_garbage` is told of messages that cannot be read.
        """
        self._on_message, self._on_garbage = on_message, on_garbage
        loop = asyncio.get_running_loop()
        loop.add_reader(self._from_worker.fileno(), self._take)
        loop.call_soon(self._take)

    def close(self) -> None:
        if self._on_message is not None:
            asyncio.get_running_loop().remove_reader(self._from_worker.fileno())
        self._to_worker.close()
        self._from_worker.close()

    def _take(self) -> None:
        """Take some messages, and come back for the others in another turn.

        NOTE: the descriptor becomes readable when a message comes, not while one is there: so nobody may stop taking
        before the socket says that it is empty, but by asking for another turn.
        """
        assert self._on_message is not None
        assert self._on_garbage is not None
        for _ in range(_MESSAGES_PER_TURN):
            if self._from_worker.closed:
                return
            try:
                frame = self._from_worker.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = from_worker_decoder.decode(frame)
            except msgspec.DecodeError as exc:
                self._on_garbage(exc)
            else:
                self._on_message(message)
        asyncio.get_running_loop().call_soon(self._take)


class ChildChannel:
    """The worker's end: a thread that listens and lets the parent know that it lives; any thread may send.

    Args:
        on_message: Called on the channel's thread for each message; must return at once.
        heartbeat: Called on the channel's thread twice a second.
    """

    def __init__(
        self, endpoint: str, *, on_message: Callable[[ToWorker], None], heartbeat: Callable[[], Heartbeat]
    ) -> None:
        self._on_message = on_message
        self._heartbeat = heartbeat
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._from_parent, self._to_parent = self._context.socket(zmq.PULL), self._context.socket(zmq.PUSH)
        for each, address in zip((self._from_parent, self._to_parent), _addresses(endpoint), strict=True):
            each.setsockopt(zmq.LINGER, _LAST_WORDS_MS)
            each.set_hwm(0)
            each.connect(address)
        self._sending = threading.Lock()
        self._end_receiver, self._end_sender = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, message: FromWorker) -> None:
        """Send a message, without waiting for anybody to take it; any thread. Order is kept per sending thread."""
        frame = encoder.encode(message)
        with self._sending:
            if not self._to_parent.closed:
                self._to_parent.send(frame)

    def close(self) -> None:
        """End the thread, and send what has been queued. What is sent later is lost. Safe to call twice."""
        with self._sending:
            if self._to_parent.closed:
                return
            self._to_parent.close()
        self._end_sender.close()
        self._thread.join()
        self._end_receiver.close()
        self._context.term()  # waits for the last words

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._from_parent, zmq.POLLIN)
        poller.register(self._end_receiver, zmq.POLLIN)
        next_heartbeat = time.monotonic()
        while True:
            if time.monotonic() >= next_heartbeat:
                faults.reach("worker.heartbeat")
                self.send(self._heartbeat())
                next_heartbeat = time.monotonic() + HEARTBEAT_INTERVAL_S
            wait_s = max(0.0, next_heartbeat - time.monotonic())
            ready = dict(poller.poll(int(wait_s * 1000) + 1))
            if self._end_receiver.fileno() in ready:
                break
            while self._from_parent.poll(0):
                self._on_message(to_worker_decoder.decode(self._from_parent.recv()))
        self._from_parent.close()


def _addresses(endpoint: str) -> tuple[str, str]:
    """Where messages to the worker, and from it, are exchanged."""
    return f"{endpoint}>", f"{endpoint}<"
