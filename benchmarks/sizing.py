"""The sizing table of docs/gpu.md: what models take of a GPU, computed by the estimator that the server uses.

    python -m benchmarks.sizing    # writes the table anew

Nothing is loaded or measured: shapes are those of `model_shapes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.model_shapes import LLAMA3_8B, QWEN3_0_6B, QWEN3_8B, QWEN3_30B_A3B, ModelShape, Quantisation
from benchmarks.tables import markdown, refill
from server.bindings.context_options import ContextOptions
from server.bindings.gpu import Gpu
from server.bindings.memory_estimate import estimate_chat
from server.bindings.placement import ALL_LAYERS, Placement
from server.config.schema import KvType
from server.device_needs import DeviceNeed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"

_GIB = 1 << 30
_CARD = Gpu(0, "", "", 1 << 40, 0, "9.0", "")  # as large as it takes
_MODELS: tuple[tuple[ModelShape, Quantisation], ...] = (
    (QWEN3_0_6B, "Q8_0"),
    (LLAMA3_8B, "Q4_K_M"),
    (QWEN3_8B, "Q4_K_M"),
    (QWEN3_8B, "Q8_0"),
    (QWEN3_30B_A3B, "Q4_K_M"),
)
_LOADS = ((4096, 8), (4096, 32), (8192, 16), (32_768, 4))
"""Tokens of a request, and how many run at a time with that much each."""

_IDLE_IDS = 64
_NOT_YET = "not measured yet"


def main() -> None:
    PAGE.write_text(refill(PAGE.read_text(encoding="utf-8"), {"sizing": sizing_table}), encoding="utf-8")


def sizing_table() -> str:
    head = ("model", "context", "chats", "weights", "KV f16", "KV q8_0", "step", "total f16", "total q8_0", "tok/s")
    return markdown(head, _rows())


def _rows() -> Iterator[tuple[str, ...]]:
    for shape, quantisation in _MODELS:
        for context, chats in _LOADS:
            if context > shape.context_length:
                continue
            full, small = (_need(shape, quantisation, context, chats, kind) for kind in _KINDS)
            yield (
                f"{shape.name} {quantisation}",
                f"{context:,}",
                str(chats),
                *map(_gib, (full.weights, full.kv, small.kv, full.compute, full.total, small.total)),
                _NOT_YET,
            )


_KINDS: tuple[KvType, KvType] = ("f16", "q8_0")


def _need(shape: ModelShape, quantisation: Quantisation, context: int, chats: int, kind: KvType) -> DeviceNeed:
    options = ContextOptions(
        num_cells=context * chats,
        max_sequences=chats + _IDLE_IDS,
        num_threads=1,
        flash_attention=True,
        kv_type=kind,
    )
    placement = Placement(gpu_layers=ALL_LAYERS)
    return estimate_chat(shape.header(quantisation), options, placement, [_CARD]).of(_CARD.device)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f}"


if __name__ == "__main__":
    main()
