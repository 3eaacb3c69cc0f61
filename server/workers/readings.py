"""What there is to tell of one model and its worker, for the metrics: from its last heartbeat, and from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from server.config.schema import ModelConfig
from server.telemetry.metrics import ModelReading
from server.types import EncoderCounts, EngineCounts
from server.workers.client import WorkerClient

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def model_reading(config: ModelConfig, client: WorkerClient, *, pid: int | None, num_restarts: int) -> ModelReading:
    """Read one model. What its worker has not told is None."""
    has_worker = client.state == "ready"
    return ModelReading(
        model_id=config.id,
        kind=config.kind,
        state=client.state,
        num_restarts=num_restarts,
        resident_bytes=None if pid is None else resident_bytes(pid),
        num_running=client.num_computing if has_worker else None,
        num_waiting=client.num_waiting if has_worker else None,
        **_of_encoder(client.encoded),
        **_of_engine(client.generated),
    )


def resident_bytes(pid: int) -> int | None:
    """Memory of a process; None if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return None


def _of_encoder(counts: EncoderCounts | None) -> dict[str, int]:
    if counts is None:
        return {}
    return {
        "num_batches": counts.num_batches,
        "num_batch_tokens": counts.num_tokens,
        "num_padding_tokens": counts.num_padding_tokens,
    }


def _of_engine(counts: EngineCounts | None) -> dict[str, int]:
    if counts is None:
        return {}
    return {
        "num_batches": counts.num_steps,
        "num_batch_tokens": counts.num_tokens,
        "used_cells": counts.num_used_cells,
        "num_cells": counts.num_cells,
        "num_prefix_tokens": counts.num_prefix_tokens,
        "num_prefix_hits": counts.num_prefix_hits,
        "num_preemptions": counts.num_preemptions,
        "num_drafted": counts.num_drafted,
        "num_accepted": counts.num_accepted,
    }
