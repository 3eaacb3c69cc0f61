"""Ask llama.cpp how it would lay a model out, without taking the memory: `python -m server.bindings.layout_child`.

In a child, because llama.cpp ends the process on what it does not like, and because the API process loads no runtime.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from server.bindings.context_options import ContextOptions
from server.bindings.placement import Placement
from server.device_needs import DeviceNeed, MemoryEstimate
from server.errors import LoadFailed

_PROJECT = Path(__file__).resolve().parents[2]
_MIB = 1 << 20
_SIZE = r"= +([\d.]+) MiB"


class LayoutAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told on its standard input."""

    path: str
    options: ContextOptions
    placement: Placement
    num_ids: int


@dataclass(frozen=True)
class Layout:
    """Sizes in bytes, as llama.cpp tells them.

    Attributes:
        kept: The KV cache and the states of recurrent layers, of all devices together.
        computing: A step's buffers by llama.cpp's name of the device: `CPU`, `CUDA0`; pinned memory of the machine is
            `CUDA_Host`.
        output: Logits that are read.
    """

    kept: int
    computing: dict[str, int]
    output: int


def ask_layout(ask: LayoutAsk, *, environ: dict[str, str], timeout_s: float = 30.0) -> Layout:
    """Ask in a child. Blocks for half a second, on a machine with GPUs for some.

    Args:
        environ: Of the child; shows it the GPUs that the model's worker will see.

    Raises:
        LoadFailed: llama.cpp cannot load the model, or says nothing in time.
    """
    name = Path(ask.path).name
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "server.bindings.layout_child"],
            input=msgspec.json.encode(ask),
            cwd=_PROJECT,
            env=environ,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"llama.cpp did not say within {timeout_s:g} s what {name} takes") from None
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise LoadFailed(f"llama.cpp cannot lay out {name}: {last or f'it ended with {done.returncode}'}")
    return read_layout(done.stdout.decode("utf-8", "replace"))


def read_layout(log: str) -> Layout:
    """Find the sizes in llama.cpp's log: nothing else in its C interface tells them."""
    kept = re.findall(rf"^llama_(?:kv_cache|memory_recurrent)\w*: size {_SIZE}", log, re.MULTILINE)
    computing: dict[str, int] = {}
    for name, size in re.findall(rf"(\S+) +compute buffer size {_SIZE}", log):
        computing[name] = _bytes(size)  # told again when it is laid out anew: the last one holds
    output = re.findall(rf"output buffer size {_SIZE}", log)
    return Layout(sum(map(_bytes, kept)), computing, _bytes(output[-1]) if output else 0)


def refined(estimate: MemoryEstimate, layout: Layout) -> MemoryEstimate:
    """Put llama.cpp's own sizes in place of those that a rule gave.

    What is kept is shared out as the rule did. Of the machine's memory the rule's smaller figure for a step stays: what
    llama.cpp reserves there for logits that nobody reads is never touched, and so never taken.
    """
    by_rule = sum(need.kv for need in estimate.needs)
    needs = []
    gpu_names = iter(sorted(name for name in layout.computing if re.fullmatch(r"CUDA\d+", name)))
    for need in estimate.needs:
        kv = layout.kept * need.kv // by_rule if by_rule else 0
        if need.device == "cpu":
            reserved = layout.computing.get("CPU", 0) + layout.computing.get("CUDA_Host", 0)
            compute = min(need.compute, reserved + 2 * layout.output)
        else:
            compute = layout.computing.get(next(gpu_names, ""), need.compute)
        needs.append(msgspec.structs.replace(need, kv=kv, compute=compute))
    needs = _with_unshared(needs, layout, by_rule)
    return msgspec.structs.replace(estimate, needs=tuple(needs), source="llama.cpp")


def _with_unshared(needs: list[DeviceNeed], layout: Layout, by_rule: int) -> list[DeviceNeed]:
    """Where the rule knew of nothing that is kept, it is where most weights are."""
    if by_rule or not layout.kept:
        return needs
    most = max(needs, key=lambda need: need.weights)
    return [msgspec.structs.replace(need, kv=layout.kept) if need is most else need for need in needs]


def _bytes(mib: str) -> int:
    return round(float(mib) * _MIB)
