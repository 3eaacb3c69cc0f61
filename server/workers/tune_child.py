"""The process of `hearth tune`: reads a `WorkerSpec` from standard input, writes a `Tuning` to standard output."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from server.bindings.build_info import load_build_info
from server.bindings.llama_model import LlamaModel, num_gpu_layers
from server.config.schema import ModelConfig
from server.errors import HearthError
from server.telemetry.logs import configure_logs
from server.workers.messages import LOAD_FAILED_EXIT_CODE, WorkerSpec
from server.workers.runtime_choice import choose_context, measure
from server.workers.tuning import Tuning

BUDGET_S = 60.0
"""Somebody asked for it: time enough to compare everything, and long prompts."""


def main() -> None:
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    configure_logs("warning", "text")
    try:
        sys.stdout.write(msgspec.json.encode(_tune(spec)).decode())
    except HearthError as exc:
        sys.stderr.write(f"{exc.message}\n")
        sys.exit(LOAD_FAILED_EXIT_CODE)


def _tune(spec: WorkerSpec) -> Tuning:
    config = ModelConfig.model_validate_json(spec.model_json)
    build = load_build_info()
    gpu_layers = num_gpu_layers(config, has_gpu=build.cuda)
    assert spec.weights_path is not None
    with LlamaModel(
        Path(spec.weights_path),
        gpu_layers=gpu_layers,
        use_extra_bufts=build.use_extra_bufts and not spec.portable_kernels,
    ) as model:
        return measure(
            model,
            config,
            spec,
            context_length=choose_context(config.context, own=model.context_length),
            has_gpu_layers=gpu_layers != 0,
            budget_s=BUDGET_S,
        )


if __name__ == "__main__":
    main()
