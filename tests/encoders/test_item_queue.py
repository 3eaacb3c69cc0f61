import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.encoders.encoder import EncodedItem, TokenBudget
from server.encoders.item_queue import MAX_BULK_PASSED_OVER, MAX_PADDING, TURN_SPACING, ItemQueue, QueuedItem
from server.types import Lane

MAX_TOKENS = 40
BUDGET = TokenBudget(MAX_TOKENS)
lanes = st.sampled_from(["interactive", "bulk"])
arrivals = st.lists(st.tuples(lanes, st.integers(1, 60)), min_size=1, max_size=60)


def item(num_tokens: int) -> EncodedItem:
    return EncodedItem([7] * num_tokens, [0] * num_tokens)


def queue_of(lengths: list[int], lane: Lane = "interactive", *, in_order: bool = False) -> ItemQueue[int]:
    queue: ItemQueue[int] = ItemQueue()
    for owner, num_tokens in enumerate(lengths):
        queue.add(owner, item(num_tokens), lane, in_order=in_order)
    return queue


def lengths_of(batch: list[QueuedItem[int]]) -> list[int]:
    return [each.num_tokens for each in batch]


def padding_of(batch: list[QueuedItem[int]]) -> float:
    lengths = lengths_of(batch)
    return 1 - sum(lengths) / (max(lengths) * len(lengths))


def test_neighbours_of_the_oldest_by_length_share_its_batch() -> None:
    queue = queue_of([10, 30, 11, 10, 29])

    assert lengths_of(queue.take_batch(BUDGET)) == [10, 10, 11]


def test_an_item_longer_than_the_budget_runs_alone() -> None:
    queue = queue_of([MAX_TOKENS + 1, 3, MAX_TOKENS + 2])

    assert lengths_of(queue.take_batch(BUDGET)) == [MAX_TOKENS + 1]


def test_a_short_item_runs_without_long_ones_rather_than_with_padding() -> None:
    queue = queue_of([2, 12, 12])

    assert lengths_of(queue.take_batch(BUDGET)) == [2]


def test_a_packed_batch_takes_any_length() -> None:
    queue = queue_of([2, 30, 3, 12])

    assert lengths_of(queue.take_batch(TokenBudget(MAX_TOKENS, is_packed=True))) == [2, 3, 12]


def test_interactive_items_come_first_and_bulk_ones_fill_up() -> None:
    queue = queue_of([10, 10, 30], "bulk")
    queue.add(3, item(10), "interactive")

    batch = queue.take_batch(BUDGET)

    assert sorted(each.lane for each in batch) == ["bulk", "bulk", "interactive"]
    assert lengths_of(batch) == [10, 10, 10]


def test_bulk_items_do_not_starve() -> None:
    queue = queue_of([30], "bulk")

    batches = []
    for _ in range(MAX_BULK_PASSED_OVER + 1):
        queue.add(1, item(10), "interactive")
        batches.append(queue.take_batch(BUDGET))

    assert [batch[0].lane for batch in batches] == ["interactive"] * MAX_BULK_PASSED_OVER + ["bulk"]


def test_a_long_request_does_not_hold_up_short_ones() -> None:
    queue: ItemQueue[str] = ItemQueue()
    for position in range(1000):
        queue.add("long", item(30), "interactive", position=position)
    queue.take_batch(BUDGET)

    queue.add("short", item(10), "interactive")

    assert [each.owner for each in queue.take_batch(BUDGET)] == ["short"]


def test_many_short_requests_do_not_hold_up_a_long_one() -> None:
    queue: ItemQueue[str] = ItemQueue()
    for position in range(10):
        queue.add("long", item(30), "interactive", position=position)

    taken = []
    for _ in range(10 * (TURN_SPACING + 1)):
        queue.add("short", item(10), "interactive")
        taken += queue.take_batch(TokenBudget(10))  # one item a batch

    assert [each.owner for each in taken].count("long") == 10


def test_a_promoted_item_leaves_the_bulk_lane() -> None:
    queue = queue_of([30], "bulk")
    wanted = queue.add(1, item(20), "bulk")

    queue.promote(wanted)

    assert queue.take_batch(BUDGET) == [wanted]


def test_items_that_stay_in_order_are_not_picked_by_length() -> None:
    queue = queue_of([10, 3, 10, 10], in_order=True)
    queue.add(9, item(10), "interactive")

    assert sorted(each.owner for each in queue.take_batch(BUDGET)) == [0, 1, 2, 3]


def test_an_item_can_be_put_first() -> None:
    queue = queue_of([30, 31])
    late = queue.add(2, item(10), "interactive", in_order=True)

    queue.put_first(late)

    assert queue.take_batch(BUDGET) == [late]


def test_dropped_items_leave_nothing_behind() -> None:
    queue: ItemQueue[int] = ItemQueue()
    dropped = [queue.add(0, item(n), "bulk", in_order=n == 6) for n in (5, 6, 6)]
    kept = queue.add(1, item(5), "bulk")

    for each in dropped:
        queue.drop(each)

    assert queue.take_batch(BUDGET) == [kept]
    assert len(queue) == 0


@given(arrivals)
def test_batches_cover_all_items_once_oldest_first_within_budget(arrived: list[tuple[Lane, int]]) -> None:
    queue: ItemQueue[int] = ItemQueue()
    waiting = [queue.add(owner, item(length), lane) for owner, (lane, length) in enumerate(arrived)]

    while len(queue):
        batch = queue.take_batch(BUDGET)

        oldest = {lane: next((each for each in waiting if each.lane == lane), None) for lane in ("interactive", "bulk")}
        assert any(each in batch for each in oldest.values()), "the oldest item of a lane is in every batch"
        assert len(batch) == 1 or max(lengths_of(batch)) * len(batch) <= MAX_TOKENS
        assert padding_of(batch) <= MAX_PADDING + 1e-9
        waiting = [each for each in waiting if each not in batch]
        assert len(waiting) == len(queue)
    assert waiting == []


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_a_batch_has_no_gaps(lengths: list[int]) -> None:
    """The naive twin looks at every item that stayed: none has a length between those taken."""
    queue = queue_of(lengths)

    taken = {each.owner: each.num_tokens for each in queue.take_batch(BUDGET)}
    left = [n for owner, n in enumerate(lengths) if owner not in taken]

    assert not any(min(taken.values()) < n < max(taken.values()) for n in left)


@pytest.mark.parametrize("seed", range(5))
def test_a_full_queue_of_mixed_lengths_wastes_little_and_fills_its_batches(seed: int) -> None:
    """Texts of 8 to 200 words have some 10 to 260 tokens; the queue is kept at 128 items, as 16 lists of 8 do."""
    rng = random.Random(seed)
    budget = TokenBudget(1024)
    queue = queue_of([rng.randint(10, 260) for _ in range(128)])

    batches = []
    for _ in range(200):
        batches.append(lengths_of(queue.take_batch(budget)))
        for _ in batches[-1]:
            queue.add(0, item(rng.randint(10, 260)), "interactive")

    num_tokens = sum(sum(batch) for batch in batches)
    num_computed = sum(max(batch) * len(batch) for batch in batches)
    assert num_tokens >= 0.9 * num_computed, f"seed {seed}: {1 - num_tokens / num_computed:.1%} padding"
    assert num_computed / len(batches) >= 0.6 * budget.max_tokens


def test_bulk_items_can_be_left_out() -> None:
    queue = queue_of([5])
    queue.add(7, item(5), "bulk")

    assert lengths_of(queue.take_batch(BUDGET, with_bulk=False)) == [5]
    assert not queue.has_items(with_bulk=False)
    assert queue.has_items()
    assert lengths_of(queue.take_batch(BUDGET)) == [5]


def test_a_bulk_batch_can_be_held_smaller_than_others() -> None:
    queue = queue_of([3, 3, 3, 3], "bulk")
    queue.add(4, item(30), "interactive")

    sizes = [lengths_of(queue.take_batch(BUDGET, max_bulk_tokens=most)) for most in (6, 6, 1)]

    assert sizes == [[30], [3, 3], [3]]  # one goes always
