from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.encoders.batcher import Batcher, Encoded, EncodeOutcome
from server.errors import ContextLengthExceeded, InternalError, InvalidRequest, ModelUnavailable
from tests.fakes.encoders import FakeEncoder, fake_vector

TIMEOUT_S = 10


class Harness:
    """A batcher over a fake encoder; `submit` gives a future of the request's outcome."""

    def __init__(self, encoder: FakeEncoder, *, max_batch_tokens: int) -> None:
        self.encoder = encoder
        self.max_batch_tokens = max_batch_tokens
        self.batcher = Batcher(encoder, max_batch_tokens=max_batch_tokens, num_tokenizer_threads=1)

    def submit(self, request_id: str, texts: list[str], *, truncate: bool = False) -> Future[EncodeOutcome]:
        future: Future[EncodeOutcome] = Future()
        self.batcher.submit(request_id, texts, truncate=truncate, on_done=future.set_result)
        return future

    def hold(self) -> Future[EncodeOutcome]:
        """Keep the compute thread inside a forward pass until the gate is set, so that a queue can build up."""
        self.encoder.gate.clear()
        future = self.submit("holder", ["holder"])
        assert self.encoder.entered.wait(TIMEOUT_S)
        return future

    def settle(self) -> None:
        """Wait until the tokeniser has queued everything that was submitted: it has one thread, so ask it last."""
        self.batcher._pool.submit(lambda: None).result(TIMEOUT_S)


MakeHarness = Callable[..., Harness]


@pytest.fixture
def make_harness() -> Iterator[MakeHarness]:
    harnesses: list[Harness] = []

    def make(*, max_batch_tokens: int = 32, **encoder_options: object) -> Harness:
        harnesses.append(Harness(FakeEncoder(**encoder_options), max_batch_tokens=max_batch_tokens))  # type: ignore[arg-type]
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.encoder.gate.set()
        harness.batcher.close()
        harness.batcher.check_integrity()


def rows_of(future: Future[EncodeOutcome]) -> Encoded:
    outcome = future.result(TIMEOUT_S)
    assert isinstance(outcome, Encoded), outcome
    return outcome


def test_rows_come_back_in_input_order(make_harness: MakeHarness) -> None:
    texts = ["a b c d e f", "a", "a b c", "z z z z z z z z"]

    outcome = rows_of(make_harness().submit("r", texts))

    np.testing.assert_array_equal(outcome.rows, np.stack([fake_vector(text) for text in texts]))
    assert outcome.num_prompt_tokens == 18


def test_requests_share_a_forward_pass(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.hold()
    answers = [harness.submit(str(i), [f"text {i}"]) for i in range(5)]
    harness.settle()

    harness.encoder.gate.set()
    for answer in answers:
        rows_of(answer)

    assert [len(batch) for batch in harness.encoder.batches] == [1, 5]


def test_truncated_inputs_are_counted(make_harness: MakeHarness) -> None:
    outcome = rows_of(make_harness(max_tokens=2).submit("r", ["a b c", "a"], truncate=True))

    assert (outcome.num_prompt_tokens, outcome.num_truncated) == (3, 1)


def test_too_long_an_input_fails_its_request_only(make_harness: MakeHarness) -> None:
    harness = make_harness(max_tokens=2)

    failed = harness.submit("long", ["a", "a b c"])
    answered = harness.submit("short", ["a"])

    assert isinstance(failed.result(TIMEOUT_S), ContextLengthExceeded)
    assert rows_of(answered).rows.shape == (1, 8)


def test_no_inputs_is_an_error_and_not_a_wait(make_harness: MakeHarness) -> None:
    assert isinstance(make_harness().submit("r", []).result(TIMEOUT_S), InvalidRequest)


def test_poison_item_fails_alone(make_harness: MakeHarness) -> None:
    harness = make_harness(poison="bad")
    harness.hold()
    before, poisoned, after = (harness.submit(word, [f"{word} text"] * 3) for word in ("fine", "bad", "good"))
    harness.settle()

    harness.encoder.gate.set()

    assert isinstance(poisoned.result(TIMEOUT_S), InternalError)
    assert len(rows_of(before).rows) == len(rows_of(after).rows) == 3


def test_nan_from_the_model_is_an_error_and_not_an_answer(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness()
    monkeypatch.setattr(harness.encoder, "forward", lambda items: np.full((len(items), 8), np.nan, dtype=np.float32))

    assert isinstance(harness.submit("r", ["a"]).result(TIMEOUT_S), InternalError)


def test_cancelled_items_are_never_computed(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.hold()
    cancelled = harness.submit("gone", ["unwanted text"])
    kept = harness.submit("kept", ["wanted text"])
    harness.settle()

    harness.batcher.cancel("gone")
    harness.batcher.cancel("never existed")
    harness.encoder.gate.set()
    rows_of(kept)

    assert harness.encoder.batches == [["holder"], ["wanted text"]]
    assert not cancelled.done()


def test_cancelling_the_running_request_discards_its_rows(make_harness: MakeHarness) -> None:
    harness = make_harness()
    running = harness.hold()

    harness.batcher.cancel("holder")
    harness.encoder.gate.set()
    rows_of(harness.submit("next", ["a"]))

    assert not running.done()


def test_progress_shows_the_batch_that_runs(make_harness: MakeHarness) -> None:
    harness = make_harness()
    assert harness.batcher.progress() == (0, 0.0, 0, 0)
    holder = harness.hold()
    harness.submit("waiting", ["a", "b"])
    harness.settle()

    busy = harness.batcher.progress()
    harness.encoder.gate.set()
    rows_of(holder)

    assert (busy.num_steps, busy.num_running, busy.num_waiting) == (2, 1, 2)  # both are tokenised, nothing is computed
    assert busy.busy_s > 0
    assert harness.batcher.progress().num_steps >= 3


def test_close_fails_what_has_not_been_computed(make_harness: MakeHarness) -> None:
    harness = make_harness()
    running = harness.hold()
    waiting = harness.submit("waiting", ["a"])
    harness.settle()

    # As if `close` had begun while the batch runs; it blocks until the batch has ended, so the gate must open first.
    harness.batcher._is_closed = True
    harness.encoder.gate.set()
    harness.batcher.close()

    assert rows_of(running).rows.shape == (1, 8)
    assert isinstance(waiting.result(TIMEOUT_S), ModelUnavailable)


def test_a_raising_callback_does_not_stop_the_batcher(make_harness: MakeHarness) -> None:
    harness = make_harness()

    def explode(outcome: EncodeOutcome) -> None:
        raise RuntimeError("callback")

    harness.batcher.submit("r", ["a"], truncate=False, on_done=explode)

    assert rows_of(harness.submit("next", ["b"])).rows.shape == (1, 8)


words = st.lists(st.sampled_from(["a", "bb", "ccc", "bad"]), min_size=1, max_size=12).map(" ".join)
requests = st.lists(st.lists(words, min_size=1, max_size=6), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(requests=requests)
def test_every_request_ends_once_and_like_one_forward_pass_per_text(requests: list[list[str]]) -> None:
    """The naive twin computes each text alone; a request fails exactly if one of its texts does."""
    harness = Harness(FakeEncoder(poison="bad"), max_batch_tokens=16)
    futures = [harness.submit(str(i), texts) for i, texts in enumerate(requests)]

    for texts, future in zip(requests, futures, strict=True):
        outcome = future.result(TIMEOUT_S)
        if any("bad" in text for text in texts):
            assert isinstance(outcome, InternalError)
        else:
            np.testing.assert_array_equal(rows_of(future).rows, np.stack([fake_vector(text) for text in texts]))

    harness.batcher.close()
    harness.batcher.check_integrity()
    for batch in harness.encoder.batches:
        assert len(batch) == 1 or max(len(text.split()) for text in batch) * len(batch) <= 16
