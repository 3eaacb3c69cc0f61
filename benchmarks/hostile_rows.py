"""Hostile requests, made from a seed: bodies too large, too deep and too many, numbers that are none, grammars that
never end, texts that forge roles. Row by row as in docs/security.md, each with the statuses that are right for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from benchmarks import hostile_bodies, hostile_fields, hostile_grammars
from benchmarks.hostile_requests import Hostile, Maker

ROWS: dict[Maker, float] = {**hostile_bodies.ROWS, **hostile_fields.ROWS, **hostile_grammars.ROWS}
"""Kinds of requests, and how often they come."""


def hostile_requests(seed: int, count: int) -> Iterator[Hostile]:
    """The same ones for the same seed; every kind comes early, and those that cost seconds come seldom."""
    chance = random.Random(seed)
    makers = list(ROWS)
    for index in range(count):
        maker = makers[index] if index < len(makers) else chance.choices(makers, list(ROWS.values()))[0]
        yield maker(chance)
