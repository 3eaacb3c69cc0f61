"""The load generator's random text, and facts beside it."""

from __future__ import annotations

from server.loadgen import prompts

_TOWNS = "Arden Belford Corwen Dunmore Elsing Farley Glaston Hexham Ilkley Jarrow Kelso Lorton".split()  # noqa: SIM905
_BUILDINGS = ("bridge", "mill", "church", "library", "tower", "market hall")
_MATERIALS = ("grey stone", "red brick", "oak", "granite", "white marble", "iron")


class Prompts(prompts.Prompts):
    """Random English-like text from one seed."""

    def facts(self, count: int) -> list[str]:
        """`count` sentences, each on one town, as a retriever might find them."""
        pick, number = self.random.choice, self.random.randint
        return [
            f"The {pick(_BUILDINGS)} of {town} was built in {number(1600, 1900)} from {pick(_MATERIALS)} by "
            f"{number(12, 90)} workers and restored in {number(1901, 2020)}."
            for town in self.random.sample(_TOWNS, count)
        ]
