from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from server.encoders.encoder import EncodedItem, Rows
from server.encoders.thread_team import MAX_PARTS, MIN_WORK, ThreadTeam


def items_of(*lengths: int) -> list[EncodedItem]:
    return [EncodedItem([length] * length, [0] * length) for length in lengths]


class Work:
    """Gives each item its length as its row; notes what was computed together, and by how many threads."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, list[int]]] = []
        self._limits: dict[int, int] = {}

    def limit(self, num_threads: int) -> None:
        self._limits[threading.get_ident()] = num_threads

    def __call__(self, items: Sequence[EncodedItem]) -> Rows:
        self.parts.append((self._limits[threading.get_ident()], [item.num_tokens for item in items]))
        return np.array([[item.num_tokens] for item in items], np.float32)


def run(num_threads: int, lengths: Sequence[int], *, work_per_token: int = MIN_WORK) -> tuple[Work, list[float]]:
    work = Work()
    team = ThreadTeam(num_threads, work_per_token=work_per_token, limit_threads=work.limit)
    return work, team.run(work, items_of(*lengths))[:, 0].tolist()


def test_rows_come_in_the_order_of_the_items() -> None:
    seed = random.randrange(1 << 30)
    lengths = random.Random(seed).choices(range(1, 300), k=97)

    assert run(5, lengths)[1] == lengths, f"seed {seed}"


def test_parts_have_like_lengths_and_like_sizes() -> None:
    work, _ = run(2, [10, 200, 10, 190, 10, 10, 180, 10])

    assert sorted(work.parts) == [(1, [10, 10, 10, 10, 10, 180]), (1, [190, 200])]


def test_a_lone_item_gets_all_threads() -> None:
    assert run(4, [100])[0].parts == [(4, [100])]


def test_short_texts_get_one_thread() -> None:
    """Meeting would cost them more than it could gain."""
    assert run(4, [10, 12], work_per_token=MIN_WORK // 100)[0].parts == [(1, [10, 12])]


def test_many_cores_share_the_parts() -> None:
    work, _ = run(64, [100] * 64)

    assert [limit for limit, _ in work.parts] == [64 // MAX_PARTS] * MAX_PARTS


def test_errors_of_a_part_reach_the_caller() -> None:
    def fail(items: Sequence[EncodedItem]) -> Rows:
        raise ArithmeticError(f"{len(items)} items")

    with pytest.raises(ArithmeticError, match="1 items"):
        ThreadTeam(2, work_per_token=MIN_WORK, limit_threads=lambda _: None).run(fail, items_of(5, 5))
