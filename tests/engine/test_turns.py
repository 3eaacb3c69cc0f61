from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.engine.sequence import Sequence
from server.engine.turns import Turns
from server.types import SamplingParams

waiting = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=20)


def make(kinds: list[tuple[str, int]]) -> list[Sequence]:
    """Sequences of these tenants and priorities, in the order in which a scheduler has them."""
    made = [
        Sequence(str(index), [1], SamplingParams(), max_tokens=1, tenant=tenant, priority=priority)
        for index, (tenant, priority) in enumerate(kinds)
    ]
    return sorted(made, key=lambda sequence: sequence.priority)


@given(waiting, st.dictionaries(st.sampled_from("abc"), st.integers(0, 30)), st.integers(1, 30))
def test_the_next_is_the_first_of_whom_stands_lowest(
    kinds: list[tuple[str, int]], stands: dict[str, int], cost: int
) -> None:
    """Each that is taken puts its tenant back."""
    standing = {tenant: float(stands.get(tenant, 0)) for tenant in "abc"}
    left = make(kinds)
    turns = Turns(left, standing.__getitem__)

    for sequence in turns:
        heads = {tenant: next((each for each in left if each.tenant == tenant), None) for tenant in "abc"}
        best = min((head.priority, standing[head.tenant]) for head in heads.values() if head)
        assert heads[sequence.tenant] is sequence
        assert (sequence.priority, standing[sequence.tenant]) == best
        left.remove(sequence)
        standing[sequence.tenant] += cost

    assert left == []


@given(waiting)
def test_one_tenant_keeps_its_order_and_is_not_asked_how_it_stands(kinds: list[tuple[str, int]]) -> None:
    in_order = make([("a", priority) for _, priority in kinds])

    assert list(Turns(in_order, {}.__getitem__)) == in_order


def test_a_tenant_whose_turns_have_ended_is_not_looked_at_any_more() -> None:
    turns = Turns(make([("a", 0), ("a", 0), ("b", 0)]), lambda tenant: 0.0)
    next(turns)

    turns.end("a")

    assert [sequence.tenant for sequence in turns] == ["b"]
