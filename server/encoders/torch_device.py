"""Where torch computes."""

from __future__ import annotations

from typing import Literal

import torch

from server.errors import LoadFailed


def choose_device(configured: Literal["auto", "cpu", "cuda"]) -> str:
    """Resolve `device` of models.yaml; `auto` takes a GPU that torch can use."""
    if configured == "cuda" and not torch.cuda.is_available():
        raise LoadFailed(f"device is 'cuda' but torch {torch.__version__} finds no usable GPU; set device: cpu")
    if configured == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return configured
