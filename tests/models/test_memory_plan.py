"""Who goes to make room, against a twin that looks at all there is to choose from."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.models.memory_plan import Memory, Plan, Resident, gib, plan_room, refusal

GIB = 1 << 30


def resident(
    name: str, size: int, last_used: float, *, busy: bool = False, pinned: bool = False, vram: int = 0
) -> Resident:
    return Resident(name, Memory(size, vram), last_used, is_busy=busy, is_pinned=pinned)


def names(plan: Plan) -> list[str]:
    return [each.model_id for each in plan.evicted]


def test_nobody_goes_while_there_is_room() -> None:
    plan = plan_room(Memory(3), Memory(10), [resident("a", 7, 1)])

    assert (plan.outcome, plan.evicted, plan.free) == ("fits", (), Memory(3))


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    residents = [resident("new", 3, 9), resident("old", 3, 1), resident("middle", 3, 5)]

    assert names(plan_room(Memory(4), Memory(10), residents)) == ["old"]
    assert names(plan_room(Memory(6), Memory(10), residents)) == ["old", "middle"]


def test_a_small_old_one_is_spared_where_the_next_one_is_large_enough() -> None:
    residents = [resident("small", 1, 1), resident("large", 8, 2)]

    assert names(plan_room(Memory(5), Memory(10), residents)) == ["large"]


def test_busy_and_pinned_ones_stay() -> None:
    residents = [resident("busy", 6, 1, busy=True), resident("pinned", 2, 2, pinned=True), resident("idle", 2, 3)]

    later = plan_room(Memory(7), Memory(10), residents)
    never = plan_room(Memory(9), Memory(10), residents)

    assert (later.outcome, [each.model_id for each in later.awaited]) == ("later", ["busy"])
    assert never.outcome == "never"


def test_the_memory_of_a_gpu_is_planned_for_beside_the_machines() -> None:
    residents = [resident("a", 1, 1, vram=8), resident("b", 8, 2, vram=1)]

    plan = plan_room(Memory(1, 4), Memory(100, 10), residents)

    assert names(plan) == ["a"]
    assert plan_room(Memory(1, 0), Memory(100, 0), residents).outcome == "fits"  # needs none, so it may be overdrawn


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (8, "model 'x' needs 5.1 GiB, but there is 4.0 GiB free after evicting 'a', and 'b' cannot go while they are"),
        (4, "model 'x' needs 5.1 GiB, but there is 0 MiB free after evicting 'a'; lower its context or kv_cells"),
    ],
)
def test_a_refusal_has_the_numbers(budget: int, expected: str) -> None:
    need = Memory(int(5.1 * GIB))
    residents = [resident("a", 3 * GIB, 1), resident("b", 4 * GIB, 2, busy=True)]

    text = refusal("x", need, plan_room(need, Memory(budget * GIB), residents))

    assert text.startswith(expected)


def test_sizes_are_written_as_people_do() -> None:
    assert [gib(size) for size in (0, 812 << 20, 5 * GIB + GIB // 10)] == ["0 MiB", "812 MiB", "5.1 GiB"]


sizes = st.integers(0, 6)
memories = st.builds(Memory, sizes, sizes)


@st.composite
def many_residents(draw: st.DrawFn) -> list[Resident]:
    found = draw(st.lists(st.tuples(memories, st.booleans(), st.booleans()), max_size=7))
    order = draw(st.permutations(range(len(found))))
    return [
        Resident(str(used), memory, used, is_busy=busy, is_pinned=pinned)
        for used, (memory, busy, pinned) in zip(order, found, strict=True)
    ]


@given(need=memories, budget=st.builds(Memory, st.integers(0, 20), st.integers(0, 20)), residents=many_residents())
def test_plans_are_those_of_a_twin_that_tries_everything(
    need: Memory, budget: Memory, residents: list[Resident]
) -> None:
    """Of all choices that make room, the one that spares the most recently used, then the next, and so on."""
    plan = plan_room(need, budget, residents)

    choices = _choices(need, budget, residents)
    if choices:
        assert plan.outcome == "fits"
        assert set(plan.evicted) == choices[0]
        assert plan.free == _free(budget, residents, choices[0])
    else:
        without_busy = [each for each in residents if not each.is_busy or each.is_pinned]
        assert plan.outcome == ("later" if _choices(need, budget, without_busy) else "never")
    assert all(each.may_go for each in plan.evicted)


def _choices(need: Memory, budget: Memory, residents: list[Resident]) -> list[set[Resident]]:
    """All sets of models whose end makes room, the best first."""
    newest_first = sorted((each for each in residents if each.may_go), key=lambda each: -each.last_used)
    found = []
    for goes in product((False, True), repeat=len(newest_first)):  # in order: the newest is spared the longest
        chosen = {each for each, is_chosen in zip(newest_first, goes, strict=True) if is_chosen}
        if need.fits_into(_free(budget, residents, chosen)):
            found.append(chosen)
    return found


def _free(budget: Memory, residents: list[Resident], gone: set[Resident]) -> Memory:
    for each in residents:
        if each not in gone:
            budget -= each.memory
    return budget
