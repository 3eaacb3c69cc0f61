from hypothesis import given
from hypothesis import strategies as st

from server.encoders.encoder import EncodedItem
from server.encoders.item_queue import ItemQueue

BUDGET = 40
lengths = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=8), min_size=1, max_size=8)


def item(num_tokens: int) -> EncodedItem:
    return EncodedItem([7] * num_tokens, [0] * num_tokens)


def queue_of(requests: list[list[int]]) -> ItemQueue[int]:
    queue: ItemQueue[int] = ItemQueue()
    for owner, sizes in enumerate(requests):
        queue.add(owner, [item(size) for size in sizes])
    return queue


def test_neighbours_by_length_share_a_batch_across_requests() -> None:
    queue = queue_of([[10], [30, 11], [9, 29]])

    batch = queue.take_batch(BUDGET)

    assert [(each.owner, each.num_tokens) for each in batch] == [(2, 9), (0, 10), (1, 11)]


def test_an_item_longer_than_the_budget_runs_alone() -> None:
    queue = queue_of([[BUDGET + 1, 3, BUDGET + 2]])

    assert [each.num_tokens for each in queue.take_batch(BUDGET)] == [BUDGET + 1]


def test_dropped_request_leaves_nothing_behind() -> None:
    queue = queue_of([[5, 6], [7]])

    queue.drop(0)

    assert [each.owner for each in queue.take_batch(BUDGET)] == [1]
    assert len(queue) == 0


@given(lengths)
def test_batches_cover_all_items_once_oldest_first_within_budget(requests: list[list[int]]) -> None:
    queue = queue_of(requests)
    waiting = [(owner, index) for owner, sizes in enumerate(requests) for index in range(len(sizes))]

    while len(queue):
        batch = queue.take_batch(BUDGET)
        taken = [(each.owner, each.index) for each in batch]

        assert waiting[0] in taken, "the oldest waiting item is in every batch"
        assert len(batch) == 1 or max(each.num_tokens for each in batch) * len(batch) <= BUDGET
        waiting = [each for each in waiting if each not in taken]
        assert len(waiting) == len(queue)
    assert waiting == []


@given(lengths)
def test_a_batch_is_full_and_has_no_gaps(requests: list[list[int]]) -> None:
    """The naive twin looks at every item that stayed: none fits any more, and none has a length between those taken."""
    queue = queue_of(requests)

    taken = {(each.owner, each.index): each.num_tokens for each in queue.take_batch(BUDGET)}
    left = [n for owner, sizes in enumerate(requests) for i, n in enumerate(sizes) if (owner, i) not in taken]

    shortest, longest = min(taken.values()), max(taken.values())
    assert all(max(longest, n) * (len(taken) + 1) > BUDGET for n in left)
    assert not any(shortest < n < longest for n in left)
