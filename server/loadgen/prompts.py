"""Text that differs from run to run, so that no cache of an earlier run helps anyone."""

from __future__ import annotations

import random
import time

WORDS = (  # noqa: SIM905  # sixty quotes would not read better
    "river stone window garden letter morning engine harbour copper forest winter signal market candle bridge paper "
    "yellow quiet narrow distant gentle broken golden hidden simple careful ancient modern open silver green heavy "
    "carries builds follows remembers crosses reaches studies opens gathers repairs measures watches answers holds "
    "and under beside after because while through between before without across near since until"
).split()


class Prompts:
    """Random English-like text from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311  # load, not secrets

    def words(self, count: int) -> str:
        """`count` words in sentences of about a dozen."""
        words = [self.random.choice(WORDS) for _ in range(count)]
        for end in range(11, count, 12):
            words[end] += "."
        return " ".join(words)


def new_seed() -> int:
    """Of prompts that nobody has seen before."""
    return time.time_ns() % 2**32
