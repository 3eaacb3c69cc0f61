"""Dynamic batching: many small requests in, few well-filled forward passes out, one ending per request.

    caller's thread     submit, cancel, progress, close: never waits for the model
    tokeniser pool      Encoder.tokenize of each request as it arrives, while the compute thread is busy
    compute thread      takes a batch from the queue, runs Encoder.forward, hands rows to their requests

One lock (`_changed`) guards all state that threads share; it is held for bookkeeping only, never while the encoder
or a callback runs. The compute thread sleeps on it until there is work. What goes into a batch is `item_queue.py`'s
decision; what an item means is the encoder's. Knows no messages and no processes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from server.encoders.encoder import EncodedItem, Encoder, Rows
from server.encoders.item_queue import ItemQueue, QueuedItem
from server.errors import HearthError, InternalError, InvalidRequest, ModelUnavailable

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 1024
"""Padded tokens of one forward pass. Measured on 2 busy cores with texts of 8-200 words: the fp32 embedder is equally
fast from 512 to 2048, and slower beyond. A batch is also how long a new request may wait for the model."""

NUM_TOKENIZER_THREADS = 2
"""Two, so that one huge request does not hold up the small ones behind it; tokenising is far cheaper than computing."""


@dataclass(frozen=True)
class Encoded:
    """The answer to one request.

    Attributes:
        rows: float32 [num_inputs, dimensions] or [num_inputs], in input order; owned by the receiver.
        num_prompt_tokens: Tokens of all inputs after truncation.
        num_truncated: Inputs that lost text to truncation.
    """

    rows: Rows
    num_prompt_tokens: int
    num_truncated: int


EncodeOutcome = Encoded | HearthError


class Progress(NamedTuple):
    """Signs of life for the heartbeat.

    Attributes:
        num_steps: Requests tokenised and forward passes returned since start, failed ones included.
        busy_s: How long the forward pass now running has taken; 0 when idle.
        num_running: Items in the batch now being computed.
        num_waiting: Items that wait for a batch, and those that the tokeniser has yet to look at or to drop.
    """

    num_steps: int
    busy_s: float
    num_running: int
    num_waiting: int


@dataclass(eq=False, slots=True)
class _Request:
    """A live request. `rows[i]` is None until input i is computed; `num_left` counts those."""

    request_id: str
    inputs: Sequence[object]
    truncate: bool
    on_done: Callable[[EncodeOutcome], None]
    rows: list[Rows | None]
    num_left: int
    num_prompt_tokens: int = 0
    num_truncated: int = 0


class Batcher:
    """Owns the threads that run one encoder. Every submitted request ends once: answered, failed or cancelled."""

    def __init__(
        self,
        encoder: Encoder[Any],
        *,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        num_tokenizer_threads: int = NUM_TOKENIZER_THREADS,
    ) -> None:
        self._encoder = encoder
        self._max_batch_tokens = max_batch_tokens
        self._changed = threading.Condition()
        self._requests: dict[str, _Request] = {}
        self._queue: ItemQueue[_Request] = ItemQueue()
        self._num_steps = 0
        self._num_untokenized = 0  # items, cancelled ones included: a tokeniser that is stuck with them must show
        self._num_running = 0
        self._forward_started_at: float | None = None
        self._is_closed = False
        self._pool = ThreadPoolExecutor(num_tokenizer_threads, thread_name_prefix="encoder-tokenizer")
        # A daemon: a forward pass that never returns must not keep a dying worker alive.
        self._thread = threading.Thread(target=self._run, name="encoder-compute", daemon=True)
        self._thread.start()

    # ---- caller's thread

    def submit(
        self, request_id: str, inputs: Sequence[object], *, truncate: bool, on_done: Callable[[EncodeOutcome], None]
    ) -> None:
        """Queue a request and return at once.

        Args:
            request_id: Unique among live requests.
            inputs: What the encoder tokenises, at least one; not to be changed afterwards.
            truncate: Whether inputs that are too long are cut at their end or refused.
            on_done: Called exactly once with the answer or the error, unless the request is cancelled first.
                Runs on a thread of the batcher (or of `close`), so it must be quick and must not raise.
        """
        request = _Request(request_id, inputs, truncate, on_done, rows=[None] * len(inputs), num_left=len(inputs))
        with self._changed:
            assert request_id not in self._requests, f"request id {request_id!r} is in use"
            self._requests[request_id] = request
            self._num_untokenized += len(inputs)
        self._pool.submit(self._tokenize, request)

    def cancel(self, request_id: str) -> None:
        """Forget a request: what has not been computed never will be. Unknown ids are ignored."""
        with self._changed:
            if request := self._requests.pop(request_id, None):
                self._queue.drop(request)

    def progress(self) -> Progress:
        with self._changed:
            started_at = self._forward_started_at
            return Progress(
                num_steps=self._num_steps,
                busy_s=0.0 if started_at is None else time.monotonic() - started_at,
                num_running=self._num_running,
                num_waiting=len(self._queue) + self._num_untokenized,
            )

    def close(self) -> None:
        """Finish the batch now running, fail every other request, end the threads. Call nothing afterwards."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._thread.join()
        for request in list(self._requests.values()):
            self._end(request, ModelUnavailable("the model is being unloaded; try again later"))

    def check_integrity(self) -> None:
        """Assert that nothing is left over. Call when every request has ended and no batch runs."""
        with self._changed:
            assert not self._requests, f"requests left: {list(self._requests)}"
            assert len(self._queue) == 0, f"{len(self._queue)} items left in the queue"
            assert self._num_running == 0, f"{self._num_running} items still running"

    # ---- tokeniser pool

    def _tokenize(self, request: _Request) -> None:
        try:
            if not self._is_live(request):
                return
            if not request.inputs:
                raise InvalidRequest("there is nothing to encode; send at least one input", param="input")
            encoded = self._encoder.tokenize(request.inputs, truncate=request.truncate)
        except HearthError as exc:
            self._end(request, exc)
        except BaseException:  # a panic inside the Rust tokenizer is no Exception, and must not leave anyone waiting
            logger.exception("tokenizer failed", extra={"request_id": request.request_id})
            self._end(request, InternalError("the tokenizer failed on this request; the server's log has the details"))
        else:
            self._enqueue(request, encoded)
        finally:
            with self._changed:
                self._num_untokenized -= len(request.inputs)
                self._num_steps += 1

    def _enqueue(self, request: _Request, encoded: list[EncodedItem]) -> None:
        with self._changed:
            request.num_prompt_tokens = sum(item.num_tokens for item in encoded)
            request.num_truncated = sum(item.is_truncated for item in encoded)
            if self._is_live(request):
                self._queue.add(request, encoded)
                self._changed.notify()

    # ---- compute thread

    def _run(self) -> None:
        while batch := self._next_batch():
            self._compute(batch)

    def _next_batch(self) -> list[QueuedItem[_Request]]:
        """Wait for work; empty means that the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._queue) > 0)
            if self._is_closed:
                return []
            return self._queue.take_batch(self._max_batch_tokens)

    def _compute(self, batch: list[QueuedItem[_Request]]) -> None:
        """Answer the items of a batch. If it fails, halve it until the item at fault stands alone."""
        batch = [item for item in batch if self._is_live(item.owner)]
        if not batch:
            return
        try:
            rows = self._forward(batch)
        except Exception:
            if len(batch) == 1:
                self._fail_poison(batch[0])
                return
            middle = len(batch) // 2
            self._compute(batch[:middle])
            self._compute(batch[middle:])
        else:
            self._deliver(batch, rows)

    def _forward(self, batch: list[QueuedItem[_Request]]) -> Rows:
        with self._changed:
            self._num_running = len(batch)
            self._forward_started_at = time.monotonic()
        try:
            rows = self._encoder.forward([item.encoded for item in batch])
        finally:
            with self._changed:
                self._num_running = 0
                self._forward_started_at = None
                self._num_steps += 1
        if len(rows) != len(batch) or not np.isfinite(rows).all():
            raise ArithmeticError(f"a forward pass of {len(batch)} items gave {len(rows)} rows, or NaN or infinity")
        return rows

    def _fail_poison(self, item: QueuedItem[_Request]) -> None:
        """Called while the exception is being handled."""
        logger.exception(
            "encoder failed on an item",
            extra={"request_id": item.owner.request_id, "index": item.index, "num_tokens": item.num_tokens},
        )
        message = f"the model failed on input {item.index}; the server's log has the details"
        self._end(item.owner, InternalError(message))

    def _deliver(self, batch: list[QueuedItem[_Request]], rows: Rows) -> None:
        # Rows and num_left are touched by this thread only, once the request is tokenised.
        for item, row in zip(batch, rows, strict=True):
            request = item.owner
            request.rows[item.index] = row
            request.num_left -= 1
            if request.num_left == 0:
                whole = np.stack([row for row in request.rows if row is not None])
                self._end(request, Encoded(whole, request.num_prompt_tokens, request.num_truncated))

    # ---- any thread

    def _end(self, request: _Request, outcome: EncodeOutcome) -> None:
        """Give a live request its one ending; do nothing if it was cancelled or has ended meanwhile."""
        with self._changed:
            if not self._is_live(request):
                return
            del self._requests[request.request_id]
            if request.num_left:
                self._queue.drop(request)
        try:
            request.on_done(outcome)
        except Exception:
            logger.exception("request's callback failed", extra={"request_id": request.request_id})

    def _is_live(self, request: _Request) -> bool:
        return self._requests.get(request.request_id) is request  # one atomic read; right at once, with the lock or not
