"""Prompts that differ from run to run, so that no cache of an earlier run helps anyone."""

from __future__ import annotations

import random
import time

WORDS = (  # noqa: SIM905  # sixty quotes would not read better
    "river stone window garden letter morning engine harbour copper forest winter signal market candle bridge paper "
    "yellow quiet narrow distant gentle broken golden hidden simple careful ancient modern open silver green heavy "
    "carries builds follows remembers crosses reaches studies opens gathers repairs measures watches answers holds "
    "and under beside after because while through between before without across near since until"
).split()

_TOWNS = "Arden Belford Corwen Dunmore Elsing Farley Glaston Hexham Ilkley Jarrow Kelso Lorton".split()  # noqa: SIM905
_BUILDINGS = ("bridge", "mill", "church", "library", "tower", "market hall")
_MATERIALS = ("grey stone", "red brick", "oak", "granite", "white marble", "iron")


class Prompts:
    """Random English-like text from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed)

    def words(self, count: int) -> str:
        """`count` words in sentences of about a dozen."""
        words = [self._random.choice(WORDS) for _ in range(count)]
        for end in range(11, count, 12):
            words[end] += "."
        return " ".join(words)

    def facts(self, count: int) -> list[str]:
        """`count` sentences, each on one town, as a retriever might find them."""
        pick, number = self._random.choice, self._random.randint
        return [
            f"The {pick(_BUILDINGS)} of {town} was built in {number(1600, 1900)} from {pick(_MATERIALS)} by "
            f"{number(12, 90)} workers and restored in {number(1901, 2020)}."
            for town in self._random.sample(_TOWNS, count)
        ]


def new_seed() -> int:
    """Of prompts that nobody has seen before."""
    return time.time_ns() % 2**32
