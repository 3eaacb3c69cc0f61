"""Sizes of a llama.cpp context. Knows no llama.cpp: what is planned before anything is loaded needs them too."""

from __future__ import annotations

from dataclasses import dataclass

from server.config.schema import KvType

CELLS_STEP = 256
"""llama.cpp rounds the cells of a stream up to so many."""

_MAX_LLAMA_IDS = 256
"""llama.cpp's own limit."""


@dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """Sizes of a context.

    Attributes:
        num_cells: Tokens that the KV cache holds, for all sequences together.
        streams: Give each sequence an equal part of the cells for itself: unrelated sequences do not slow each other's
            attention down, and sharing a prefix means copying it. Otherwise (unified) any sequence may use any cell.
        max_sequences: Sequence ids are 0 .. max_sequences - 1; the function of this name says how many may be.
        max_batch_tokens: Most tokens in one `decode`.
        max_ubatch_tokens: Tokens that the graph computes at a time.
        num_threads: Compute threads.
        flash_attention: Fused attention kernels: fast on a GPU, anything from twice to a quarter as fast on a CPU.
        kv_type: What a cell holds its numbers in. llama.cpp takes others than f16 only with flash attention.
    """

    num_cells: int
    max_sequences: int
    max_batch_tokens: int = 2048
    max_ubatch_tokens: int = 512
    num_threads: int
    streams: bool = False
    flash_attention: bool = False
    kv_type: KvType = "f16"

    @property
    def num_reserved_cells(self) -> int:
        """What llama.cpp makes of `num_cells`: in streams each sequence gets a whole number of steps."""
        num_streams = self.max_sequences if self.streams else 1
        step = CELLS_STEP * num_streams
        return -(-_rounded_up(self.num_cells) // step) * step

    @property
    def num_ubatch_tokens(self) -> int:
        """What is computed at a time in the end: never more than a sequence may have."""
        return min(self.max_ubatch_tokens, self.max_batch_tokens, self.num_reserved_cells)


def max_sequences(*, has_window: bool, streams: bool) -> int:
    """Say how many sequences a context can have: fewer where each needs a twin.

    Args:
        has_window: Whether some layers of the model see the last tokens only.
    """
    return _MAX_LLAMA_IDS // (2 if has_twins(has_window=has_window, streams=streams) else 1)


def has_twins(*, has_window: bool, streams: bool) -> bool:
    """Whether each sequence has a second id that holds the same cells.

    In a unified cache, llama.cpp gives cells that lie behind the window of their only holder to whoever comes by, and
    planning a batch of several micro-batches it drops some that are still seen. It never touches cells of two holders.
    """
    return has_window and not streams


def _rounded_up(num_cells: int) -> int:
    return -(-num_cells // CELLS_STEP) * CELLS_STEP
