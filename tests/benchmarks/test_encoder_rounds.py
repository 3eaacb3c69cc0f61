from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.encoder_contenders import Contender
from benchmarks.encoder_loads import EMBEDDING_LOADS, Load
from benchmarks.encoder_rounds import Entrant, measure
from benchmarks.figures import Outcome
from benchmarks.results import Section
from benchmarks.servers import ServerFailed


@dataclass(frozen=True)
class Fake(Contender):
    """Gives the same figures for each load, or does not start."""

    title: str
    calls: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)
    fails: bool = False

    @property
    def name(self) -> str:
        return self.title

    def run(self, loads: Sequence[Load], seed: int) -> Iterator[tuple[Load, Outcome]]:
        self.calls.append((self.title, tuple(load.name for load in loads), seed))
        if self.fails:
            raise ServerFailed("no such file")
        for load in loads:
            yield load, Outcome({"items_per_s": float(len(self.calls))})


def run(*entrants: Entrant, repetitions: int) -> list[dict[str, Section]]:
    """What was saved after each repetition."""
    saved: list[dict[str, Section]] = []
    measure(entrants, EMBEDDING_LOADS, repetitions, save=saved.append)
    return saved


def test_contenders_take_turns_in_rotating_order_on_the_same_texts() -> None:
    calls: list[tuple[str, tuple[str, ...], int]] = []

    run(*(Entrant(role, Fake(role, calls), frozenset({"c16"})) for role in "xyz"), repetitions=3)

    assert "".join(title for title, _, _ in calls) == "xyzyzxzxy"
    assert [len({seed for _, _, seed in calls[start : start + 3]}) for start in (0, 3, 6)] == [1, 1, 1]
    assert len({seed for _, _, seed in calls}) == 3


def test_a_contender_starts_once_for_all_its_loads() -> None:
    fake = Fake("x")

    run(Entrant("x", fake, frozenset({"short", "c16"})), repetitions=1)

    assert [loads for _, loads, _ in fake.calls] == [("c16", "short")]


def test_two_contenders_of_one_role_share_it_in_different_loads() -> None:
    [saved] = run(
        Entrant("hearth", Fake("cold"), frozenset({"c16"})), Entrant("hearth", Fake("warm"), frozenset({"again"})),
        repetitions=1,
    )  # fmt: skip

    assert {load: servers["hearth"]["name"] for load, servers in saved.items()} == {"c16": "cold", "again": "warm"}


def test_whoever_does_not_start_is_asked_once_and_reported() -> None:
    broken = Fake("broken", fails=True)

    saved = run(Entrant("x", broken, frozenset({"c16"})), repetitions=3)[-1]

    assert (len(broken.calls), saved["c16"]["x"]["rejected"]) == (1, "no such file")


def test_each_repetition_is_saved_with_those_before() -> None:
    saved = run(Entrant("x", Fake("x"), frozenset({"c16"})), repetitions=2)

    assert [each["c16"]["x"]["figures"]["items_per_s"]["values"] for each in saved] == [[1.0], [1.0, 2.0]]
