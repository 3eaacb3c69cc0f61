"""What is computed once: texts that are known already, and those that several wait for at the same time."""

from __future__ import annotations

import numpy as np

from server.errors import InternalError
from tests.fakes.batching import TIMEOUT_S, MakeHarness, rows_of
from tests.fakes.encoders import fake_vector


def test_a_corpus_embedded_again_needs_no_forward_pass(make_harness: MakeHarness) -> None:
    harness = make_harness(cache_bytes=1 << 20)
    corpus = [f"text {i}" for i in range(100)]
    first = rows_of(harness.submit("first", corpus))
    num_batches = len(harness.encoder.batches)

    again = rows_of(harness.submit("again", corpus))

    assert len(harness.encoder.batches) == num_batches
    assert (first.num_cached, again.num_cached) == (0, 100)
    assert again.num_prompt_tokens == first.num_prompt_tokens
    np.testing.assert_array_equal(again.rows, first.rows)


def test_tenants_share_nothing_that_was_computed(make_harness: MakeHarness) -> None:
    """Or counts, and the time an answer takes, would tell one what another has asked."""
    harness = make_harness(cache_bytes=1 << 20)
    rows_of(harness.submit("first", ["canary"], tenant="one"))

    again = rows_of(harness.submit("again", ["canary"], tenant="one"))
    other = rows_of(harness.submit("other", ["canary"], tenant="other"))
    default = rows_of(harness.submit("default", ["canary"]))

    assert (again.num_cached, other.num_cached, default.num_cached) == (1, 0, 0)
    np.testing.assert_array_equal(other.rows, again.rows)


def test_tenants_share_nothing_that_is_being_computed(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.hold()
    asked = [harness.submit(tenant, ["canary"], tenant=tenant) for tenant in ("one", "other")]
    harness.settle()

    harness.encoder.gate.set()

    assert [rows_of(each).num_cached for each in asked] == [0, 0]


def test_duplicates_are_computed_once(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.hold()
    one = harness.submit("one", ["same text", "same text", "other text"])
    two = harness.submit("two", ["same text"])
    harness.settle()

    harness.encoder.gate.set()

    assert (rows_of(one).num_cached, rows_of(two).num_cached) == (1, 1)
    assert sorted(text for batch in harness.encoder.batches[1:] for text in batch) == ["other text", "same text"]


def test_a_batch_that_runs_is_joined(make_harness: MakeHarness) -> None:
    harness = make_harness()
    running = harness.hold()
    joined = harness.submit("joined", ["holder"])
    harness.settle()

    harness.encoder.gate.set()

    np.testing.assert_array_equal(rows_of(running).rows, rows_of(joined).rows)
    assert harness.encoder.batches == [["holder"]]


def test_cancelling_one_of_two_leaves_the_other_its_row(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.hold()
    gone = harness.submit("gone", ["wanted by both"])
    kept = harness.submit("kept", ["wanted by both"])
    harness.settle()

    harness.batcher.cancel("gone")
    harness.encoder.gate.set()

    np.testing.assert_array_equal(rows_of(kept).rows, [fake_vector("wanted by both")])
    assert not gone.done()


def test_a_poisonous_item_fails_all_who_share_it(make_harness: MakeHarness) -> None:
    harness = make_harness(poison="bad")
    harness.hold()
    sharers = [harness.submit(str(i), ["fine", "bad"]) for i in range(2)]
    harness.settle()

    harness.encoder.gate.set()

    for sharer in sharers:
        error = sharer.result(TIMEOUT_S)
        assert isinstance(error, InternalError) and "input 1" in error.message
