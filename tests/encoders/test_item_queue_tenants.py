"""Tenants in the queue of an encoder: each gets its share of the batches, and nothing else changes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.encoders.encoder import EncodedItem, TokenBudget
from server.encoders.item_queue import ItemQueue, QueuedItem
from server.types import Lane

BUDGET = TokenBudget(40)
arrivals = st.lists(
    st.tuples(st.sampled_from(["ada", "bob"]), st.sampled_from(["interactive", "bulk"]), st.integers(1, 60)),
    min_size=1,
    max_size=60,
)


def item(num_tokens: int) -> EncodedItem:
    return EncodedItem([7] * num_tokens, [0] * num_tokens)


def flooded(num_items: int = 1000, num_tokens: int = 10) -> ItemQueue[str]:
    """A queue in which one tenant has many requests waiting."""
    queue: ItemQueue[str] = ItemQueue()
    for _ in range(num_items):
        queue.add("flood", item(num_tokens), "interactive", tenant="flood")
    queue.take_batch(BUDGET)
    return queue


def owners(batch: list[QueuedItem[str]]) -> Counter[str]:
    return Counter(each.owner for each in batch)


def test_a_newcomer_is_in_the_next_batch_however_many_wait() -> None:
    queue = flooded()

    queue.add("alone", item(30), "interactive", tenant="other")

    assert owners(queue.take_batch(BUDGET))["alone"] == 1


def test_a_newcomers_other_items_come_before_those_of_the_flood() -> None:
    queue = flooded()
    for position in range(4):
        queue.add("alone", item(10), "interactive", position=position, tenant="other")

    assert owners(queue.take_batch(BUDGET)) == {"alone": 4}


def test_what_is_left_of_a_batch_is_filled_with_others_items() -> None:
    queue = flooded()
    queue.add("alone", item(10), "interactive", tenant="other")

    assert owners(queue.take_batch(BUDGET)) == {"alone": 1, "flood": 3}


def test_tenants_that_always_want_more_share_by_their_weights() -> None:
    queue: ItemQueue[str] = ItemQueue()
    for _ in range(400):
        queue.add("light", item(10), "interactive", tenant="light")
        queue.add("heavy", item(10), "interactive", tenant="heavy", weight=3.0)

    taken: Counter[str] = Counter()
    for _ in range(40):
        taken += owners(queue.take_batch(BUDGET))

    assert 0.7 < taken["heavy"] / taken.total() < 0.8


def test_whoever_wants_an_item_of_the_flood_too_gets_it_at_their_own_turn() -> None:
    queue = flooded()
    wanted = queue.add("flood", item(30), "interactive", position=500, tenant="flood")

    queue.adopt(wanted, "other", 1.0)

    assert wanted in queue.take_batch(BUDGET)


def test_who_has_had_more_does_not_take_an_item_into_its_own_queue() -> None:
    queue = flooded()
    *_, wanted = [queue.add("alone", item(10), "interactive", tenant="other") for _ in range(3)]
    assert owners(queue.take_batch(TokenBudget(10))) == {"alone": 1}
    assert owners(queue.take_batch(BUDGET)) == {"flood": 4}

    queue.adopt(wanted, "flood", 1.0)

    assert wanted.tenant == "other"


def test_what_is_put_first_is_first_whosever_it_is() -> None:
    queue = flooded()
    late = queue.add("flood", item(30), "interactive", position=500, tenant="flood")
    queue.add("alone", item(10), "interactive", tenant="other")

    queue.put_first(late)

    assert late in queue.take_batch(BUDGET)


@given(arrivals)
def test_every_item_leaves_once_and_no_batch_exceeds_its_budget(arrivals: list[tuple[str, Lane, int]]) -> None:
    queue: ItemQueue[int] = ItemQueue()
    for owner, (tenant, lane, num_tokens) in enumerate(arrivals):
        queue.add(owner, item(num_tokens), lane, tenant=tenant)

    taken: list[QueuedItem[int]] = []
    while len(queue):
        batch = queue.take_batch(BUDGET)
        longest = max(each.num_tokens for each in batch)
        assert len(batch) == 1 or longest * len(batch) <= BUDGET.max_tokens
        taken += batch

    assert sorted(each.owner for each in taken) == list(range(len(arrivals)))


@given(arrivals)
def test_a_batch_begins_with_an_item_of_whoever_has_had_least(arrivals: list[tuple[str, Lane, int]]) -> None:
    """Against a naive count of what each has been given in the interactive lane since both were there."""
    queue: ItemQueue[int] = ItemQueue()
    left: Counter[str] = Counter()
    for owner, (tenant, _, num_tokens) in enumerate(arrivals):
        queue.add(owner, item(num_tokens), "interactive", tenant=tenant)
        left[tenant] += 1
    had = dict.fromkeys(left, 0)

    while all(left.values()):
        least = min(had.values())
        batch = queue.take_batch(BUDGET)
        assert any(had[each.tenant] == least for each in batch)
        for each in batch:
            had[each.tenant] += each.num_tokens
            left[each.tenant] -= 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_one_tenant_has_the_same_batches_whatever_its_name(lengths: list[int]) -> None:
    queues: list[ItemQueue[int]] = [ItemQueue(), ItemQueue()]
    for owner, num_tokens in enumerate(lengths):
        queues[0].add(owner, item(num_tokens), "interactive", position=owner % 7)
        queues[1].add(owner, item(num_tokens), "interactive", position=owner % 7, tenant="ada", weight=9.0)

    while len(queues[0]):
        batches = [[each.owner for each in queue.take_batch(BUDGET)] for queue in queues]
        assert batches[0] == batches[1]
