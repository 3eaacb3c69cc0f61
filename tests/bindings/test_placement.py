from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bindings.placement import ALL_LAYERS, Placement, configured_placement, gpu_parts, homes
from server.config.schema import ModelConfig
from server.errors import LoadFailed


def config(**settings: object) -> ModelConfig:
    return ModelConfig.model_validate(
        {"id": "m", "kind": "chat", "backend": "llama_cpp", "source": "file:m.gguf", **settings}
    )


@pytest.mark.parametrize(
    ("settings", "num_gpus", "layers"),
    [
        ({}, 0, 0),
        ({}, 1, ALL_LAYERS),
        ({"gpu_layers": "all"}, 1, ALL_LAYERS),
        ({"gpu_layers": 7}, 1, 7),
        ({"gpu_layers": 7}, 0, 0),
        ({"device": "cpu"}, 2, 0),
        ({"device": "cuda:1"}, 1, ALL_LAYERS),
    ],
)
def test_layers_go_where_models_yaml_says(settings: dict[str, object], num_gpus: int, layers: int) -> None:
    assert configured_placement(config(**settings), num_gpus=num_gpus).gpu_layers == layers


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_asked_for_must_be_there(device: str) -> None:
    with pytest.raises(LoadFailed, match=f"device is '{device}' but llama.cpp finds no such GPU"):
        configured_placement(config(device=device), num_gpus=0)


def test_more_parts_than_gpus_are_refused() -> None:
    with pytest.raises(LoadFailed, match="tensor_split has 2 parts but there are 1 GPUs"):
        configured_placement(config(tensor_split=[1, 1]), num_gpus=1)


def test_the_last_layers_go_first() -> None:
    assert homes(Placement(gpu_layers=3), num_layers=4, free_bytes=[100]) == [None, None, 0, 0, 0]


def test_all_layers_go_to_the_only_gpu() -> None:
    assert homes(Placement(gpu_layers=ALL_LAYERS), num_layers=2, free_bytes=[100]) == [0, 0, 0]


def test_without_gpus_all_is_on_the_processor() -> None:
    assert homes(Placement(gpu_layers=ALL_LAYERS), num_layers=2, free_bytes=[]) == [None] * 3


def test_layers_are_shared_out_by_free_memory_or_as_told() -> None:
    by_memory = homes(Placement(gpu_layers=ALL_LAYERS), num_layers=7, free_bytes=[30, 10])
    as_told = homes(Placement(gpu_layers=ALL_LAYERS, tensor_split=(1.0, 3.0)), num_layers=7, free_bytes=[30, 10])
    not_at_all = homes(Placement(gpu_layers=ALL_LAYERS, split="none"), num_layers=7, free_bytes=[30, 10])

    assert by_memory == [0] * 6 + [1] * 2
    assert as_told == [0] * 2 + [1] * 6
    assert not_at_all == [0] * 8


def as_llama_cpp(placement: Placement, num_layers: int, free: Sequence[int]) -> list[int | None]:
    """`load_tensors` of llama-model.cpp, line by line: `get_layer_buft_list`."""
    splits = list(gpu_parts(placement, free))
    total = 0.0
    for index, part in enumerate(splits):
        total += part
        splits[index] = total
    splits = [split / total for split in splits]
    wanted = num_layers + 1 if placement.gpu_layers < 0 else placement.gpu_layers
    start, active = max(num_layers + 1 - wanted, 0), min(wanted, num_layers + 1)
    found: list[int | None] = []
    for layer in range(num_layers + 1):
        if layer < start or layer - start >= active:
            found.append(None)
        else:
            place = (layer - start) / active
            found.append(next(index for index, split in enumerate(splits) if place < split))
    return found


@given(
    layers=st.integers(-1, 40),
    num_layers=st.integers(1, 32),
    free=st.lists(st.integers(1, 1 << 36), min_size=1, max_size=4),
)
def test_layers_are_assigned_as_llama_cpp_does(layers: int, num_layers: int, free: list[int]) -> None:
    placement = Placement(gpu_layers=layers)

    assert homes(placement, num_layers=num_layers, free_bytes=free) == as_llama_cpp(placement, num_layers, free)
