"""Inputs laid end to end in one row, each attending to itself alone, in place of a rectangle that is partly padding.

transformers lets a network's attention be replaced by name, and hands it where the inputs begin; positions begin anew
with each. sentence-transformers pools such rows by itself. The head of a classifier gets the first token of each input
from `pack_classifier`. Of what follows only `attend_packed` differs between a GPU and a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from server.encoders.encoder import EncodedItem, Rows
from server.encoders.torch_device import send
from server.errors import LoadFailed

ATTENTION = "packed"
"""What transformers knows `attend_packed` as. It makes no mask for attention that it did not bring itself."""

_UNKNOWN_TO_US = ("sliding_window", "softcap", "s_aux", "position_bias")
"""What some networks want of attention besides: theirs are not packed."""

_HEADS_ON_FIRST_TOKEN = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
"""Architectures whose classifier looks at the first token that their `encoder` gives, and at nothing else."""

_MAX_DIFFERENCE = 0.05
"""Between rows of inputs that were packed and those of the same inputs alone, by the largest number in them. Half
precision makes a hundredth; attention to the neighbours, or positions that run on, make tenths."""


def pack(items: Sequence[EncodedItem], wanted: Iterable[str], device: str, *, first_position: int) -> dict[str, Any]:
    """Lay items end to end: what a network is called with, which are the rows that it wants, positions, and bounds.

    Args:
        wanted: Names of inputs; those that are not made here are for padding only.
        first_position: Of each item's first token.

    Returns:
        Rows of int64 [1, num_tokens]. Bounds of int32 [num_items + 1], where each item begins and the last one ends,
        and the greatest length, by the names of transformers' own flash attention.
    """
    lengths = [item.num_tokens for item in items]
    rows = {
        "input_ids": np.concatenate([np.array(item.token_ids, np.int64) for item in items]),
        "token_type_ids": np.concatenate([np.array(item.type_ids, np.int64) for item in items]),
        "position_ids": np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]) + first_position,
    }
    names = rows.keys() & {*wanted, "position_ids"}
    bounds = send(np.cumsum([0, *lengths], dtype=np.int32), device)
    return {
        **{name: send(rows[name][None], device) for name in names},
        **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), bounds),
        **dict.fromkeys(("max_length_q", "max_length_k"), max(lengths)),
    }


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each input: [1, heads, num_tokens, width of a head] in, [1, num_tokens, heads, width] out.

    Raises:
        NotImplementedError: The network wants attention of another kind.
    """
    if unknown := [name for name in _UNKNOWN_TO_US if options.get(name) is not None]:
        raise NotImplementedError(f"the network's attention has {', '.join(unknown)}; such inputs are not packed")
    causal: bool = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if query.device.type == "cuda":
        lengths = (cu_seq_lens_q, max_length_q)
        return _attend_on_gpu(query, key, value, *lengths, scale=scaling, causal=causal), None
    pieces = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=causal,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, stop in pairwise(cu_seq_lens_q.tolist())
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _attend_on_gpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    *,
    scale: float | None,
    causal: bool,
) -> torch.Tensor:
    """By torch's own FlashAttention-2, for half precision; the package flash-attn is not needed."""
    queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
    attended = varlen_attn(
        queries,
        keys,
        values,
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)  # and no pair, as nothing besides was asked for
    return attended[None]


AttentionInterface.register(ATTENTION, attend_packed)


def pack_network(network: PreTrainedModel) -> None:
    """Change a loaded network so that it takes what `pack` makes.

    Raises:
        LoadFailed: Its attention cannot be replaced.
    """
    if network.is_backend_compatible():
        network.set_attn_implementation(ATTENTION)
    if network.config._attn_implementation != ATTENTION:
        raise LoadFailed(f"inputs of a {type(network).__name__} cannot be packed: its attention cannot be replaced")


def pack_classifier(network: PreTrainedModel) -> None:
    """The same for a network with a classification head, which gets each input's first token as if padded.

    Raises:
        LoadFailed: Its attention cannot be replaced, or its head may look elsewhere.
    """
    if network.config.model_type not in _HEADS_ON_FIRST_TOKEN:
        raise LoadFailed(f"inputs of a {type(network).__name__} cannot be packed: its head is not known")
    pack_network(network)
    network.base_model.encoder.register_forward_hook(_keep_first_tokens, with_kwargs=True)


def _keep_first_tokens(_encoder: torch.nn.Module, _args: object, kwargs: dict[str, Any], output: Any) -> Any:
    """[1, num_tokens, width] to [num_items, 1, width]"""
    output.last_hidden_state = output.last_hidden_state[0, kwargs["cu_seq_lens_q"][:-1].long(), None]
    return output


def check_packing(forward: Callable[[Sequence[EncodedItem]], Rows], items: Sequence[EncodedItem]) -> None:
    """Refuse a network that does not keep packed inputs apart, whatever it says about itself.

    Raises:
        LoadFailed: Its rows for `items`, of several lengths, depend on their being together.
    """
    together, alone = forward(items), np.concatenate([forward([item]) for item in items])
    difference = float(np.abs(together - alone).max() / np.abs(alone).max())
    if not difference <= _MAX_DIFFERENCE:
        raise LoadFailed(f"the network does not keep packed inputs apart: results differ by {difference:.0%}")
