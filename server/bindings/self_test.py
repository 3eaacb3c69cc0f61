"""Decode a few tokens in a child process: does the llama.cpp that was built here run on this CPU at all?

A compiler that miscompiles the AMX kernels is only noticed by dying of SIGILL, so the parent never loads llama.cpp:
`run_self_test` starts `python -m server.bindings.self_test MODEL.gguf [--no-extra-bufts]` and explains how it ended.
Standard library only until the child starts to work.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server.bindings.tiny_gguf import NUM_TOKENS, write_tiny_gguf

# More than one token: with a single row the AMX kernels take a path without tiles, and tiles are what is miscompiled.
_PROMPT_TOKENS = 32

_PROJECT = Path(__file__).resolve().parents[2]

Outcome = Literal["ok", "sigill", "crashed", "failed", "timeout"]


@dataclass(frozen=True)
class SelfTest:
    """How the child ended. `detail` is for people: llama.cpp's system info, or what went wrong."""

    outcome: Outcome
    detail: str

    @property
    def is_ok(self) -> bool:
        return self.outcome == "ok"


def run_self_test(
    model: Path | None = None,
    *,
    use_extra_bufts: bool = True,
    python: Path | None = None,
    timeout_s: float = 120,
) -> SelfTest:
    """Decode in a child process. Blocks; never raises for what the child does.

    Args:
        model: GGUF to decode with; by default a tiny one of random weights is written and removed.
        use_extra_bufts: False switches AMX and repacked weights off.
        python: Interpreter of the environment to test; by default the running one.
    """
    with tempfile.TemporaryDirectory(prefix="hearth-self-test-") as folder:
        if model is None:
            model = Path(folder, "tiny.gguf")
            write_tiny_gguf(model)
        argv = [str(python or sys.executable), "-m", "server.bindings.self_test", str(model)]
        argv += [] if use_extra_bufts else ["--no-extra-bufts"]
        try:
            done = subprocess.run(argv, cwd=_PROJECT, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return SelfTest("timeout", f"llama.cpp decoded nothing within {timeout_s:g} s")
    return explain_exit(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def explain_exit(returncode: int, stdout: str, stderr: str) -> SelfTest:
    """Say what a child's end means. A negative code is the signal it died of."""
    if returncode == 0:
        return SelfTest("ok", str(json.loads(stdout)["system_info"]))
    if returncode == -signal.SIGILL:
        return SelfTest(
            "sigill",
            "llama.cpp ran an instruction that this CPU does not accept (SIGILL): it was miscompiled, as gcc 12 does "
            "with AMX, or built for another CPU",
        )
    if returncode < 0:
        return SelfTest("crashed", f"llama.cpp died of {signal.Signals(-returncode).name}: {_last_line(stderr)}")
    return SelfTest("failed", _last_line(stderr))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


# ---- the child


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode a few tokens and print llama.cpp's system info as JSON.")
    parser.add_argument("model", type=Path, help="GGUF file")
    parser.add_argument("--no-extra-bufts", action="store_true", help="switch AMX and repacked weights off")
    arguments = parser.parse_args()
    print(json.dumps(_decode(arguments.model, use_extra_bufts=not arguments.no_extra_bufts)))


def _decode(path: Path, *, use_extra_bufts: bool) -> dict[str, object]:
    """Decode a short prompt and one more token, on the CPU and then, where built for one, on the GPU."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    started = time.perf_counter()
    for gpu_layers in (0, -1) if llama_cpp.llama_supports_gpu_offload() else (0,):
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = gpu_layers
        model_params.use_extra_bufts = use_extra_bufts
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not model:
            sys.exit(f"llama.cpp cannot load {path.name}")
        context_params = llama_cpp.llama_context_default_params()
        context_params.n_ctx = 256
        context_params.n_threads = context_params.n_threads_batch = 1
        context = llama_cpp.llama_init_from_model(model, context_params)
        if not context:
            sys.exit("llama.cpp cannot make a context")
        for num_tokens in (_PROMPT_TOKENS, 1):
            _decode_batch(context, num_tokens)
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)
    return {
        "system_info": (llama_cpp.llama_print_system_info() or b"").decode(),
        "use_extra_bufts": use_extra_bufts,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _decode_batch(context: object, num_tokens: int) -> None:
    import llama_cpp
    import numpy as np

    tokens = (llama_cpp.llama_token * num_tokens)(*(1 + i % (NUM_TOKENS - 1) for i in range(num_tokens)))
    status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, num_tokens))
    if status != 0:
        sys.exit(f"llama_decode returned {status} for {num_tokens} tokens")
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (NUM_TOKENS,))
    if not np.isfinite(logits).all():
        sys.exit(f"llama_decode of {num_tokens} tokens gave logits that are not finite")


if __name__ == "__main__":
    main()
