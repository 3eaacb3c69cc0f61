import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.encoders.batcher import EncodeOutcome
from server.encoders.encoder import Rows, Texts
from server.encoders.vector_cache import BYTES_PER_ENTRY
from server.errors import ContextLengthExceeded, InternalError, InvalidRequest, ModelUnavailable
from server.types import Lane
from tests.fakes.batching import TIMEOUT_S, Harness, MakeHarness, rows_of
from tests.fakes.encoders import FakeEncoder, fake_vector


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
    outcome = rows_of(make_harness(max_tokens=2).submit("r", ["a b c", "a"], truncate="end"))

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
    before, poisoned, after = (
        harness.submit(word, [f"{word} text {i}" for i in range(3)]) for word in ("fine", "bad", "good")
    )
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


def test_an_input_that_a_gpu_has_no_memory_for_says_so(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch's."""

    OutOfMemoryError.__module__ = "torch"

    def forward(items: object) -> Rows:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    harness = make_harness()
    monkeypatch.setattr(harness.encoder, "forward", forward)

    outcome = harness.submit("r", ["a"]).result(TIMEOUT_S)

    assert isinstance(outcome, InternalError)
    assert outcome.message.startswith("the model failed on input 0: the GPU has not enough free memory")


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

    harness.clock.now_s = 3
    busy = harness.batcher.progress()
    harness.encoder.gate.set()
    rows_of(holder)

    assert (busy.num_steps, busy.num_running, busy.num_waiting) == (2, 1, 2)  # both are tokenised, nothing is computed
    assert busy.busy_s == 3
    assert harness.batcher.progress().num_steps >= 3


def test_what_a_token_costs_is_learned_from_the_batches(make_harness: MakeHarness) -> None:
    harness = make_harness()
    assert harness.batcher.s_per_token == 0
    holder = harness.hold()

    harness.clock.now_s = 3
    harness.encoder.gate.set()
    rows_of(holder)
    rows_of(harness.submit("next", ["a"]))  # by then the pass before it has been noted

    num_tokens = harness.batcher.counts().num_tokens
    assert 0 < harness.batcher.s_per_token <= 3 / (num_tokens - 1)


def test_a_tenant_does_not_wait_for_another_ones_flood(make_harness: MakeHarness) -> None:
    harness = make_harness()
    holder = harness.hold()
    flood = [harness.submit(f"flood {n}", [f"text {n}"], tenant="flood") for n in range(200)]
    alone = harness.submit("alone", ["another text"], tenant="other")
    harness.settle()

    harness.encoder.gate.set()
    for future in (holder, alone, *flood):
        rows_of(future)

    assert "another text" in harness.encoder.batches[1]  # right after the one that ran


def test_a_pass_that_gets_on_is_not_one_that_hangs(make_harness: MakeHarness) -> None:
    """A single long input may take many minutes."""
    harness = make_harness()
    holder = harness.hold()

    harness.clock.now_s = 200
    harness.encoder.num_operations = 5
    getting_on = harness.batcher.progress()
    harness.clock.now_s = 290
    harness.encoder.num_operations = 9
    later = harness.batcher.progress()
    harness.clock.now_s = 600
    hanging = harness.batcher.progress()
    harness.encoder.gate.set()
    rows_of(holder)

    assert (getting_on.busy_s, later.busy_s, hanging.busy_s) == (0, 0, 310)
    assert later.num_steps - getting_on.num_steps == 4  # the keeper looks at these too
    assert hanging.num_steps == later.num_steps


def test_the_largest_request_is_computed_in_batches_like_any_other(make_harness: MakeHarness) -> None:
    """2,048 inputs, split inside, and another request does not wait for the end of it."""
    harness = make_harness(max_batch_tokens=1024)
    holder = harness.hold()
    largest = harness.submit("largest", [f"{n} word" + " of many" * 50 for n in range(2048)])
    harness.settle()
    small = harness.submit("small", ["word"])
    harness.settle()
    harness.encoder.gate.set()

    rows_of(holder)
    rows_of(small)
    num_batches_before_small = next(n for n, batch in enumerate(harness.encoder.batches) if batch == ["word"])
    assert len(rows_of(largest).rows) == 2048
    assert num_batches_before_small <= 12
    assert max(102 * len(batch) for batch in harness.encoder.batches) <= 1024


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

    harness.batcher.submit("r", Texts(["a"]), on_done=explode)

    assert rows_of(harness.submit("next", ["b"])).rows.shape == (1, 8)


def test_long_inputs_are_averaged_over_windows(make_harness: MakeHarness) -> None:
    outcome = rows_of(make_harness(max_tokens=2).submit("r", ["a b c d", "e"], truncate="mean"))

    mean = (fake_vector("a b") + fake_vector("c d")) / 2
    np.testing.assert_allclose(outcome.rows, np.stack([mean, fake_vector("e")]), rtol=1e-6)
    assert (outcome.num_prompt_tokens, outcome.num_truncated) == (5, 0)


def test_padding_is_counted(make_harness: MakeHarness) -> None:
    harness = make_harness(max_batch_tokens=64)
    harness.hold()
    answer = harness.submit("r", ["a b c d e f g h i j", "a b c d e f g h i"])
    harness.settle()

    harness.encoder.gate.set()
    rows_of(answer)

    counts = harness.batcher.counts()
    assert (counts.num_batches, counts.num_items) == (2, 3)
    assert (counts.num_tokens, counts.num_padding_tokens) == (20, 1)


# ---- lanes


def test_a_bulk_job_rests_beside_a_chat_and_nobody_else_does(make_harness: MakeHarness) -> None:
    harness = make_harness(max_batch_tokens=2)
    harness.batcher.set_bulk_share(0.5)
    harness.encoder.gate.clear()
    job = harness.submit("job", ["first one", "second one"], lane="bulk")
    assert harness.encoder.entered.wait(TIMEOUT_S)
    harness.clock.now_s = 100.0  # so long does the first batch take
    harness.encoder.gate.set()

    rows_of(harness.submit("query", ["a query"]))
    assert ["second one"] not in harness.encoder.batches
    assert not job.done()

    harness.batcher.set_bulk_share(1.0)
    rows_of(job)


def test_an_interactive_request_waits_for_one_batch_of_a_bulk_job(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.hold()
    job = harness.submit("job", [f"{'bulk ' * 15}{i}" for i in range(20)], lane="bulk")
    harness.settle()
    person = harness.submit("person", ["urgent question"])
    harness.settle()

    harness.encoder.gate.set()
    rows_of(person)
    rows_of(job)

    assert "urgent question" in harness.encoder.batches[1]


# ---- deadlines


def test_inputs_with_a_deadline_are_computed_in_the_order_given(make_harness: MakeHarness) -> None:
    harness = make_harness(max_batch_tokens=4)
    harness.hold()
    answer = harness.submit("r", ["a b", "c", "d e", "f"], timeout_s=1)
    harness.settle()

    harness.encoder.gate.set()
    rows_of(answer)

    assert [sorted(batch) for batch in harness.encoder.batches[1:]] == [["a b", "c"], ["d e", "f"]]


def test_at_the_deadline_the_answer_has_what_was_computed(make_harness: MakeHarness) -> None:
    harness = make_harness(max_batch_tokens=2)
    harness.hold()
    answer = harness.submit("r", ["a b", "c d", "e f"], timeout_s=1)
    harness.settle()

    harness.clock.now_s = 2  # while the batch before runs
    harness.encoder.gate.set()
    rows = rows_of(answer).rows

    np.testing.assert_array_equal(rows[0], fake_vector("a b"))
    assert np.isnan(rows[1:]).all()


def test_a_late_request_without_a_row_comes_next(make_harness: MakeHarness) -> None:
    harness = make_harness(max_batch_tokens=2)
    harness.hold()
    others = harness.submit("others", ["a b", "c d", "e f"])
    harness.settle()
    late = harness.submit("late", ["g h", "i j"], timeout_s=1)
    harness.settle()

    harness.clock.now_s = 2
    harness.encoder.gate.set()
    rows_of(late)
    rows_of(others)

    assert harness.encoder.batches[1] == ["g h"]


# ---- against the naive twin

words = st.lists(st.sampled_from(["a", "bb", "ccc", "bad"]), min_size=1, max_size=12).map(" ".join)
requests = st.lists(
    st.tuples(
        st.lists(words, min_size=1, max_size=6),
        st.sampled_from(["interactive", "bulk"]),
        st.sampled_from([None, 0.0, 0.5]),
        st.sampled_from(["wait", "cancel at once", "cancel later"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(requests=requests, room_for=st.sampled_from([0, 2, 1000]), is_packed=st.booleans())
def test_every_request_gets_exactly_its_rows(
    requests: list[tuple[list[str], Lane, float | None, str]], room_for: int, is_packed: bool
) -> None:
    """The naive twin computes each text alone; a request fails exactly if one of its texts does.

    Whatever is shared, cancelled, poisonous, cached or evicted. One that is late may lack rows, which then count for
    nothing, and escape the text that would have failed it; but not all of them.
    """
    encoder = FakeEncoder(poison="bad", max_batch_tokens=16, is_packed=is_packed)
    harness = Harness(encoder, cache_bytes=room_for * (BYTES_PER_ENTRY + 4 * 8))
    futures = []
    for i, (texts, lane, timeout_s, fate) in enumerate(requests):
        futures.append(harness.submit(str(i), texts, lane=lane, timeout_s=timeout_s))
        if fate == "cancel at once":
            harness.batcher.cancel(str(i))
    for i, (*_, fate) in enumerate(requests):
        if fate == "cancel later":
            harness.batcher.cancel(str(i))
    harness.clock.now_s = 1.0

    for (texts, _, timeout_s, fate), future in zip(requests, futures, strict=True):
        if fate != "wait" and not future.done():
            continue
        outcome = future.result(TIMEOUT_S)
        if isinstance(outcome, InternalError):
            assert any("bad" in text for text in texts)
            continue
        encoded = rows_of(future)
        there = [not np.isnan(row).any() for row in encoded.rows]
        assert all(there) or (timeout_s is not None and any(there))
        scored = [text for text, is_there in zip(texts, there, strict=True) if is_there]
        np.testing.assert_array_equal(encoded.rows[there], np.stack([fake_vector(text) for text in scored]))
        assert not any("bad" in text for text in scored)
        assert encoded.num_prompt_tokens == sum(len(text.split()) for text in scored)
        assert encoded.num_cached <= len(scored)

    harness.close()
    for batch in encoder.batches:
        lengths = [len(text.split()) for text in batch]
        assert len(batch) == 1 or (sum(lengths) if is_packed else max(lengths) * len(lengths)) <= 16
