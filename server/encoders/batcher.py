"""Dynamic batching: many small requests in, few well-filled forward passes out, one ending per request.

    caller's thread     submit, cancel, progress, close: never waits for the model
    tokeniser pools     Encoder.tokenize of each request as it arrives, while the compute thread is busy; what is known
                        already is answered from the cache, the rest waits for a flight
    compute thread      takes a batch of flights, runs Encoder.forward, hands rows to the requests that wait for them

One lock (`_changed`) guards all state that threads share; it is held for bookkeeping only, never while the encoder,
the disk or a callback runs. The compute thread sleeps on it until there is work. What goes into a batch is
`item_queue.py`'s decision, who shares a row `flights.py`'s; what an item means is the encoder's. Knows no messages and
no processes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from server.bindings.gpu_failure import explain_gpu_failure
from server.encoders.bulk_pace import BulkPace
from server.encoders.encoded import Encoded, assemble
from server.encoders.encoder import EncodedItem, Encoder, EncoderBroken, Rows, ShowsProgress
from server.encoders.flights import Flight, Flights
from server.encoders.vector_cache import VectorCache
from server.errors import HearthError, InternalError, InvalidRequest, ModelUnavailable
from server.types import DEFAULT_TENANT, EncoderCounts, Lane

logger = logging.getLogger(__name__)

NUM_TOKENIZER_THREADS = 2
"""Of each lane. Two, so that one huge request does not hold up the small ones behind it; tokenising is far cheaper than
computing. A lane has its own, so that a bulk job's texts never stand before an interactive one."""

PACE_MEMORY = 0.9
"""Share of what is known of the pace that a new batch leaves standing: the last ten or so count."""

EncodeOutcome = Encoded | HearthError


class Progress(NamedTuple):
    """Signs of life for the heartbeat.

    Attributes:
        num_steps: Requests tokenised and forward passes returned since start, failed ones included, and whatever steps
            the encoder shows within a pass.
        busy_s: How long the forward pass now running has taken, or has shown no step; 0 when idle.
        num_running: Items in the batch now being computed.
        num_waiting: Items that wait for a batch, and those that the tokeniser has yet to look at or to drop.
    """

    num_steps: int
    busy_s: float
    num_running: int
    num_waiting: int


@dataclass(eq=False, slots=True)
class _Request:
    """A live request. Once tokenised it has a place in `rows` for each item, None until that is there.

    Attributes:
        tenant, weight: On whose account it is computed, and which share that one gets.
        deadline: When it is answered with what there is; None: when all is there.
        is_cached: Of each item, whether no forward pass was made for it.
    """

    request_id: str
    inputs: Sized
    lane: Lane
    tenant: str
    weight: float
    deadline: float | None
    on_done: Callable[[EncodeOutcome], None]
    items: list[EncodedItem] = field(default_factory=list)
    rows: list[Rows | None] = field(default_factory=list)
    is_cached: list[bool] = field(default_factory=list)
    num_left: int = 0

    def begin(self, items: list[EncodedItem]) -> None:
        self.items = items
        self.rows = [None] * len(items)
        self.is_cached = [False] * len(items)
        self.num_left = len(items)

    def fill(self, position: int, row: Rows) -> None:
        self.rows[position] = row
        self.num_left -= 1

    @property
    def is_complete(self) -> bool:
        return self.num_left == 0

    @property
    def has_row(self) -> bool:
        return self.num_left < len(self.items)

    def input_of(self, position: int) -> int:
        """Return the index of the input that the item at `position` is, or is a window of."""
        return sum(not item.is_continuation for item in self.items[: position + 1]) - 1


class Batcher:
    """Owns the threads that run one encoder. Every submitted request ends once: answered, failed or cancelled."""

    def __init__(
        self,
        encoder: Encoder[Any],
        *,
        cache: VectorCache | None = None,
        num_tokenizer_threads: int = NUM_TOKENIZER_THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the threads. `cache` is the batcher's from now on; without one, nothing is remembered."""
        self._encoder = encoder
        self._cache = VectorCache(0) if cache is None else cache
        self._clock = clock
        self._changed = threading.Condition()
        self._requests: dict[str, _Request] = {}
        self._flights: Flights[_Request] = Flights()
        self._bulk_pace = BulkPace()
        self._counts = EncoderCounts()
        self._num_steps = 0
        self._num_untokenized = 0  # items, cancelled ones included: a tokeniser that is stuck with them must show
        self._num_running = 0
        self._forward_started_at: float | None = None
        self._num_operations = 0  # of the encoder, as last seen, and when that was
        self._saw_operations_at = clock()
        self._recent_s = self._recent_tokens = 0.0  # of forward passes, fading with each
        self._is_closed = False
        self._pools: dict[Lane, ThreadPoolExecutor] = {
            "interactive": ThreadPoolExecutor(num_tokenizer_threads, thread_name_prefix="encoder-tokenizer"),
            "bulk": ThreadPoolExecutor(num_tokenizer_threads, thread_name_prefix="encoder-bulk-tokenizer"),
        }
        # A daemon: a forward pass that never returns must not keep a dying worker alive.
        self._thread = threading.Thread(target=self._run, name="encoder-compute", daemon=True)
        self._thread.start()

    # ---- caller's thread

    def submit(
        self,
        request_id: str,
        inputs: Sized,
        *,
        on_done: Callable[[EncodeOutcome], None],
        lane: Lane = "interactive",
        timeout_s: float | None = None,
        tenant: str = DEFAULT_TENANT,
        weight: float = 1.0,
    ) -> None:
        """Queue a request and return at once.

        Args:
            request_id: Unique among live requests.
            inputs: What the encoder tokenises (`Texts` or `Pairs`), at least one; not to be changed afterwards.
            on_done: Called exactly once with the answer or the error, unless the request is cancelled first.
                Runs on a thread of the batcher (or of `close`), so it must be quick and must not raise.
            lane: Bulk inputs wait while interactive ones do, up to a bound.
            timeout_s: Compute inputs in the order given, and answer after so long with the rows that are there, at
                least one: when the batch that then runs is done.
            tenant: On whose account it is computed. Only requests of one tenant share what is computed, or was: nobody
                can tell by counts, or by how long it takes, what another one has asked.
            weight: How large the tenant's share of the batches is against those of the others who want one.
        """
        deadline = None if timeout_s is None else self._clock() + timeout_s
        request = _Request(request_id, inputs, lane, tenant, weight, deadline, on_done)
        with self._changed:
            assert request_id not in self._requests, f"request id {request_id!r} is in use"
            self._requests[request_id] = request
            self._num_untokenized += len(inputs)
        self._pools[lane].submit(self._tokenize, request)

    def cancel(self, request_id: str) -> None:
        """Forget a request: what nobody else waits for is not computed any more. Unknown ids are ignored."""
        with self._changed:
            if request := self._requests.pop(request_id, None):
                self._flights.leave(request)

    def set_bulk_share(self, share: float) -> None:
        """Let bulk batches compute in this part of the time, 0 < share <= 1; interactive ones as soon as they come."""
        with self._changed:
            self._bulk_pace.set_share(share)
            self._changed.notify()

    def progress(self) -> Progress:
        num_operations = self._encoder.num_operations if isinstance(self._encoder, ShowsProgress) else 0
        with self._changed:
            now, started_at = self._clock(), self._forward_started_at
            if num_operations != self._num_operations:
                self._num_operations, self._saw_operations_at = num_operations, now
            return Progress(
                num_steps=self._num_steps + num_operations,
                busy_s=0.0 if started_at is None else now - max(started_at, self._saw_operations_at),
                num_running=self._num_running,
                num_waiting=self._flights.num_queued + self._num_untokenized,
            )

    @property
    def s_per_token(self) -> float:
        """What a token of an item has cost lately, padding and all; 0 before the first batch."""
        with self._changed:
            return self._recent_s / self._recent_tokens if self._recent_tokens else 0.0

    def counts(self) -> EncoderCounts:
        with self._changed:
            return self._counts

    def close(self) -> None:
        """Finish the batch now running, fail every other request, end the threads. Call nothing afterwards."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._thread.join()
        for request in list(self._requests.values()):
            self._end(request, ModelUnavailable("the model is being unloaded; try again later"))
        self._cache.close()

    def check_integrity(self) -> None:
        """Assert that nothing is left over. Call when every request has ended and no batch runs."""
        with self._changed:
            assert not self._requests, f"requests left: {list(self._requests)}"
            assert self._num_running == 0, f"{self._num_running} items still running"
            self._flights.check_integrity()

    # ---- tokeniser pools

    def _tokenize(self, request: _Request) -> None:
        try:
            if not self._is_live(request):
                return
            if not len(request.inputs):
                raise InvalidRequest("there is nothing to encode; send at least one input", param="input")
            items = self._encoder.tokenize(request.inputs)
            self._begin(request, items, [_key_of(item, request.tenant) for item in items])
        except HearthError as exc:
            self._end(request, exc)
        except BaseException:  # a panic inside the Rust tokenizer is no Exception, and must not leave anyone waiting
            logger.exception("tokenizer failed", extra={"request_id": request.request_id})
            self._end(request, InternalError("the tokenizer failed on this request; the server's log has the details"))
        finally:
            with self._changed:
                self._num_untokenized -= len(request.inputs)
                self._num_steps += 1

    def _begin(self, request: _Request, items: list[EncodedItem], keys: list[bytes]) -> None:
        """Fill in the rows that are known, and let the request wait for the others."""
        with self._changed:
            unknown = [key for key in keys if self._cache.get(key) is None]
        stored = self._cache.find_stored(unknown)
        with self._changed:
            if not self._is_live(request):
                return
            request.begin(items)
            for key in stored:
                self._cache.keep(key, stored[key])
            for position, (item, key) in enumerate(zip(items, keys, strict=True)):
                row = stored.get(key, self._cache.get(key))
                if row is None:
                    in_order = request.deadline is not None
                    has_joined = self._flights.join(
                        request,
                        position,
                        key,
                        item,
                        request.lane,
                        in_order=in_order,
                        tenant=request.tenant,
                        weight=request.weight,
                    )
                    request.is_cached[position] = has_joined
                else:
                    request.fill(position, row)
                    request.is_cached[position] = True
            self._changed.notify()
        if request.is_complete:
            self._answer(request)

    # ---- compute thread

    def _run(self) -> None:
        while batch := self._next_batch():
            started_at = self._clock()
            self._compute(batch)
            self._note_pace(batch, started_at)
            self._answer_late()

    def _note_pace(self, batch: list[Flight[_Request]], started_at: float) -> None:
        """A batch has been computed: what does a token cost, and how long have bulk items had the processor?"""
        with self._changed:
            now = self._clock()
            self._recent_s = PACE_MEMORY * self._recent_s + now - started_at
            num_tokens = sum(flight.encoded.num_tokens for flight in batch)
            self._recent_tokens = PACE_MEMORY * self._recent_tokens + num_tokens
            if all(flight.is_bulk for flight in batch):
                self._bulk_pace.record(now - started_at, num_tokens=num_tokens, now=now)
            else:
                self._bulk_pace.record_interactive(now)

    def _next_batch(self) -> list[Flight[_Request]]:
        """Wait for work that may begin; empty means that the batcher is closed."""
        with self._changed:
            while not self._is_closed:
                now = self._clock()
                rest_s, max_bulk_tokens = self._bulk_pace.rest_s(now), self._bulk_pace.max_tokens(now)
                if self._flights.has_queued(with_bulk=rest_s == 0):
                    return self._flights.take_batch(
                        self._encoder.budget, with_bulk=rest_s == 0, max_bulk_tokens=max_bulk_tokens
                    )
                self._changed.wait(rest_s if self._flights.num_queued else None)
            return []

    def _compute(self, batch: list[Flight[_Request]]) -> None:
        """Answer the items of a batch. If it fails, halve it until the item at fault stands alone."""
        batch = [flight for flight in batch if flight.waiting]
        if not batch:
            return
        try:
            rows = self._forward([flight.encoded for flight in batch])
        except EncoderBroken:
            raise  # ends this thread, and with it the worker: its keeper starts another
        except Exception as exc:
            if len(batch) == 1:
                self._fail_poison(batch[0], exc)
                return
            middle = len(batch) // 2
            self._compute(batch[:middle])
            self._compute(batch[middle:])
        else:
            self._deliver(batch, rows)

    def _forward(self, items: list[EncodedItem]) -> Rows:
        with self._changed:
            self._num_running = len(items)
            self._forward_started_at = self._clock()
        try:
            rows = self._encoder.forward(items)
        finally:
            with self._changed:
                self._num_running = 0
                self._forward_started_at = None
                self._num_steps += 1
        if len(rows) != len(items) or not np.isfinite(rows).all():
            raise ArithmeticError(f"a forward pass of {len(items)} items gave {len(rows)} rows, or NaN or infinity")
        return rows

    def _fail_poison(self, flight: Flight[_Request], exc: Exception) -> None:
        """Called while the exception is being handled."""
        reason = explain_gpu_failure([f"{type(exc).__module__}.{type(exc).__name__}: {exc}"])
        logger.exception("encoder failed on an item", extra={"num_tokens": flight.encoded.num_tokens})
        with self._changed:
            waiting = self._flights.land(flight)
        for request, positions in waiting.items():
            index = request.input_of(positions[0])
            why = f": {reason}" if reason else "; the server's log has the details"
            self._end(request, InternalError(f"the model failed on input {index}{why}"))

    def _deliver(self, batch: list[Flight[_Request]], rows: Rows) -> None:
        complete = []
        with self._changed:
            self._count(batch)
            for flight, row in zip(batch, rows, strict=True):
                self._cache.put(flight.key, row)
                for request, positions in self._flights.land(flight).items():
                    for position in positions:
                        request.fill(position, row)
                    if request.is_complete:
                        complete.append(request)
        for request in complete:
            self._answer(request)

    def _count(self, batch: list[Flight[_Request]]) -> None:
        lengths = [flight.encoded.num_tokens for flight in batch]
        num_computed = sum(lengths) if self._encoder.budget.is_packed else max(lengths) * len(batch)
        self._counts = msgspec.structs.replace(
            self._counts,
            num_batches=self._counts.num_batches + 1,
            num_items=self._counts.num_items + len(batch),
            num_tokens=self._counts.num_tokens + sum(lengths),
            num_padding_tokens=self._counts.num_padding_tokens + num_computed - sum(lengths),
        )

    def _answer_late(self) -> None:
        """Answer requests whose time is over with the rows that are there; those that have none come next."""
        now = self._clock()
        with self._changed:
            late = [each for each in self._requests.values() if each.deadline is not None and each.deadline <= now]
            for request in late:
                if not request.has_row:
                    self._flights.put_first(request)
        for request in late:
            if request.has_row:
                self._answer(request)

    # ---- any thread

    def _answer(self, request: _Request) -> None:
        self._end(request, assemble(request.items, request.rows, request.is_cached))

    def _end(self, request: _Request, outcome: EncodeOutcome) -> None:
        """Give a live request its one ending; do nothing if it was cancelled or has ended meanwhile."""
        with self._changed:
            if not self._is_live(request):
                return
            del self._requests[request.request_id]
            self._flights.leave(request)
            if isinstance(outcome, Encoded):
                num_cached = self._counts.num_cached_inputs + outcome.num_cached
                self._counts = msgspec.structs.replace(self._counts, num_cached_inputs=num_cached)
        try:
            request.on_done(outcome)
        except Exception:
            logger.exception("request's callback failed", extra={"request_id": request.request_id})

    def _is_live(self, request: _Request) -> bool:
        return self._requests.get(request.request_id) is request  # one atomic read; right at once, with the lock or not


def _key_of(item: EncodedItem, tenant: str) -> bytes:
    """By what an item's row is found again: of the default tenant as always, so that older cache files stay good."""
    digest = item.digest()
    return digest if tenant == DEFAULT_TENANT else hashlib.sha256(tenant.encode() + b"\0" + digest).digest()
