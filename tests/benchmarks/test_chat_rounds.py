from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.chat_contenders import Contender
from benchmarks.chat_loads import LOADS, Load, NotTakingPart
from benchmarks.chat_rounds import measure
from benchmarks.chat_tuning import choose_best, try_out
from benchmarks.figures import Outcome
from benchmarks.prompts import Prompts

LOAD = next(load for load in LOADS if load.name == "d")


@dataclass(frozen=True)
class Fake(Contender):
    """Gives the same figures each time, or does not take part."""

    title: str
    rate: float = 1.0
    completion_rate: float = 1.0
    calls: list[tuple[str, str]] = field(default_factory=list)
    rejects: str = ""

    @property
    def name(self) -> str:
        return self.title

    def measure(self, load: Load, prompts: Prompts, num_requests: int) -> Outcome:
        self.calls.append((self.title, prompts.words(5)))
        if self.rejects:
            raise NotTakingPart(self.rejects)
        return Outcome({"tokens_per_s": self.rate, "completion_rate": self.completion_rate}, ("an error",))


def test_whoever_answers_all_is_better_than_whoever_is_fast() -> None:
    slow, fast, broken = Fake("slow", 10), Fake("fast", 99, completion_rate=0.9), Fake("broken", rejects="too small")

    assert choose_best(LOAD, [slow, fast, broken], try_out(LOAD, [slow, fast, broken])) is slow


def test_nobody_is_best_when_nobody_takes_part() -> None:
    broken = Fake("broken", rejects="too small")

    assert choose_best(LOAD, [broken], try_out(LOAD, [broken])) is None


def test_contenders_take_turns_in_rotating_order_on_the_same_prompts() -> None:
    calls: list[tuple[str, str]] = []

    measure(LOAD, {role: Fake(role, calls=calls) for role in "xyz"}, 3)

    assert "".join(role for role, _ in calls) == "xyzyzxzxy"
    assert [len({text for _, text in calls[start : start + 3]}) for start in (0, 3, 6)] == [1, 1, 1]
    assert len({text for _, text in calls}) == 3


def test_whoever_cannot_take_part_is_asked_once_and_reported() -> None:
    broken = Fake("broken", rejects="too small")

    (server,) = measure(LOAD, {"best": broken}, 3).values()

    assert (len(broken.calls), server["rejected"], server["figures"]) == (1, "too small", {})


def test_the_spread_over_repetitions_and_the_errors_are_kept() -> None:
    (server,) = measure(LOAD, {"hearth": Fake("hearth", 7.0)}, 2).values()

    assert server["figures"]["tokens_per_s"] == {"median": 7.0, "min": 7.0, "max": 7.0, "values": [7.0, 7.0]}
    assert server["errors"] == ["an error"]
