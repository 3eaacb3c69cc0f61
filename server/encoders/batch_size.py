"""How much a GPU should compute at a time: the least that keeps it busy. More only lets requests wait longer.

Found by computing twice as much at a time for as long as that brings something. The batches are those that the batcher
would make of a long queue of mixed lengths: so an encoder that does without padding shows what that is worth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from server.encoders.encoder import EncodedItem, Encoder, EncoderBroken, TokenBudget
from server.encoders.item_queue import ItemQueue

logger = logging.getLogger(__name__)

MIN_GAIN = 1.1
"""Twice the batch must be so much faster."""

QUEUED_BATCHES = 2
"""How much waits while the batches are made, counted in full ones."""


@dataclass(frozen=True)
class BatchSize:
    """`max_tokens` at a time, and the speed that they give."""

    max_tokens: int
    inputs_per_s: float


def find_batch_size(
    encoder: Encoder[Any], items: Sequence[EncodedItem], sizes: Sequence[int], clock: Callable[[], float]
) -> BatchSize:
    """Try sizes, each twice as large as the one before, until the next is not worth it or does not fit into memory.

    Args:
        items: Inputs of mixed lengths, none longer than the smallest size; as many copies are used as it takes.

    Raises:
        Exception: As `forward` does, for the smallest size.
        EncoderBroken: The device does not compute any more.
    """
    best: BatchSize | None = None
    for max_tokens in sizes:
        try:
            size = BatchSize(max_tokens, _speed(encoder, items, max_tokens, clock))
        except EncoderBroken:
            raise
        except Exception as exc:
            if best is None:
                raise
            logger.info("a larger batch cannot be computed", extra={"tokens": max_tokens, "reason": str(exc)})
            break
        if best and size.inputs_per_s < MIN_GAIN * best.inputs_per_s:
            break
        best = size
    assert best, "there are sizes"
    return best


def _speed(encoder: Encoder[Any], items: Sequence[EncodedItem], max_tokens: int, clock: Callable[[], float]) -> float:
    batches = _batches(items, TokenBudget(max_tokens, is_packed=encoder.budget.is_packed))
    seconds = sum(min(_seconds(encoder, batch, clock) for _ in range(2)) for batch in batches)  # a shape's first use
    return round(sum(map(len, batches)) / seconds, 1)


def _batches(items: Sequence[EncodedItem], budget: TokenBudget) -> list[list[EncodedItem]]:
    num_copies = -(-QUEUED_BATCHES * budget.max_tokens // sum(item.num_tokens for item in items))
    queue: ItemQueue[None] = ItemQueue()
    for item in islice(cycle(items), num_copies * len(items)):
        queue.add(None, item, "interactive")
    batches = []
    while queue.has_items():
        batches.append([queued.encoded for queued in queue.take_batch(budget)])
    return batches


def _seconds(encoder: Encoder[Any], batch: Sequence[EncodedItem], clock: Callable[[], float]) -> float:
    started = clock()
    encoder.forward(batch)
    return clock() - started
