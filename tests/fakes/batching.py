"""A batcher over a fake encoder, and time that passes when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from server.encoders.batcher import Batcher, EncodeOutcome
from server.encoders.encoded import Encoded
from server.encoders.encoder import Texts
from server.encoders.vector_cache import VectorCache
from server.types import DEFAULT_TENANT, Lane, Truncate
from tests.fakes.encoders import FakeEncoder

TIMEOUT_S = 10


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Harness:
    """A batcher over a fake encoder; `submit` gives a future of the request's outcome."""

    def __init__(self, encoder: FakeEncoder, *, cache_bytes: int = 0) -> None:
        self.encoder = encoder
        self.clock = Clock()
        self.cache = VectorCache(cache_bytes)
        self.batcher = Batcher(encoder, cache=self.cache, num_tokenizer_threads=1, clock=self.clock)

    def submit(
        self,
        request_id: str,
        texts: list[str],
        *,
        truncate: Truncate = "error",
        lane: Lane = "interactive",
        timeout_s: float | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> Future[EncodeOutcome]:
        future: Future[EncodeOutcome] = Future()
        self.batcher.submit(
            request_id,
            Texts(texts, truncate),
            lane=lane,
            timeout_s=timeout_s,
            tenant=tenant,
            on_done=future.set_result,
        )
        return future

    def hold(self) -> Future[EncodeOutcome]:
        """Keep the compute thread inside a forward pass until the gate is set, so that a queue can build up."""
        self.encoder.gate.clear()
        future = self.submit("holder", ["holder"])
        assert self.encoder.entered.wait(TIMEOUT_S)
        return future

    def settle(self) -> None:
        """Wait until all that was submitted is queued: the tokenisers have one thread for each lane, so ask it last."""
        for pool in self.batcher._pools.values():
            pool.submit(lambda: None).result(TIMEOUT_S)

    def close(self) -> None:
        self.encoder.gate.set()
        self.batcher.close()
        self.batcher.check_integrity()


MakeHarness = Callable[..., Harness]


def rows_of(future: Future[EncodeOutcome]) -> Encoded:
    outcome = future.result(TIMEOUT_S)
    assert isinstance(outcome, Encoded), outcome
    return outcome
