"""The process of `hearth tune`: reads a `WorkerSpec` from standard input, writes what it found to standard output.

That is a `Tuning` of a chat model, a `KernelFinding` of an embedding or rerank model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from server.bindings.build_info import load_build_info
from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.encoders.kernel_choice import KernelFinding
from server.errors import HearthError
from server.telemetry.logs import configure_logs
from server.workers.context_choice import choose_context
from server.workers.gpu_placement import place_chat_model
from server.workers.messages import LOAD_FAILED_EXIT_CODE, WorkerSpec
from server.workers.runtime_choice import measure
from server.workers.tuning import Tuning
from server.workers.tuning_cache import open_kernel_cache

BUDGET_S = 60.0
"""Somebody asked for it: time enough to compare everything, and long prompts."""


def main() -> None:
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    configure_logs("warning", "text")
    config = ModelConfig.model_validate_json(spec.model_json)
    assert spec.weights_path is not None
    tune = _tune_chat if config.kind == "chat" else _tune_encoder
    try:
        found = tune(config, spec, Path(spec.weights_path))
    except HearthError as exc:
        sys.stderr.write(f"{exc.message}\n")
        sys.exit(LOAD_FAILED_EXIT_CODE)
    sys.stdout.write(msgspec.json.encode(found).decode())


def _tune_chat(config: ModelConfig, spec: WorkerSpec, weights: Path) -> Tuning:
    build = load_build_info()
    placement = place_chat_model(config, spec)
    with LlamaModel(
        weights,
        placement=placement,
        use_extra_bufts=build.use_extra_bufts and not spec.portable_kernels,
    ) as model:
        return measure(
            model,
            config,
            spec,
            context_length=choose_context(config.context, own=model.context_length),
            has_gpu_layers=placement.uses_gpu,
            budget_s=BUDGET_S,
        )


def _tune_encoder(config: ModelConfig, spec: WorkerSpec, weights: Path) -> KernelFinding:
    from server.encoders.loading import measure_encoder

    return measure_encoder(config, weights, num_threads=spec.num_threads, memory=open_kernel_cache(config, spec))


if __name__ == "__main__":
    main()
