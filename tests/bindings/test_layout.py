from __future__ import annotations

from server.bindings.layout import Layout, read_layout, refined
from server.device_needs import DeviceNeed, MemoryEstimate

MIB = 1 << 20

CPU_LOG = """
load_tensors:          CPU model buffer size =     0.00 MiB
llama_context:        CPU  output buffer size =    15.00 MiB
llama_kv_cache:        CPU KV buffer size =     0.00 MiB
llama_kv_cache: size =  360.00 MiB ( 16384 cells,  30 layers, 80/1 seqs), K (f16):  180.00 MiB, V (f16):  180.00 MiB
sched_reserve:        CPU compute buffer size =   356.98 MiB
"""
GPU_LOG = """
llama_context:  CUDA_Host  output buffer size =     9.27 MiB
llama_kv_cache: size = 1024.00 MiB ( 8192 cells,  16 layers, 16/1 seqs), K (f16):  512.00 MiB, V (f16):  512.00 MiB
llama_kv_cache: size =  128.00 MiB ( 1024 cells,  16 layers, 16/1 seqs), K (f16):   64.00 MiB, V (f16):   64.00 MiB
llama_memory_recurrent: size =   10.50 MiB (    16 cells,  48 layers, 16 seqs  0 rs_seq), R (f32):    1.50 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
sched_reserve:      CUDA0 compute buffer size =   316.75 MiB
sched_reserve:      CUDA1 compute buffer size =   200.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    24.01 MiB
"""


def test_sizes_are_found_in_the_log() -> None:
    layout = read_layout(CPU_LOG)

    assert (layout.kept, layout.output) == (360 * MIB, 15 * MIB)
    assert layout.computing == {"CPU": round(356.98 * MIB)}


def test_all_caches_count_and_the_last_word_on_buffers_holds() -> None:
    layout = read_layout(GPU_LOG)

    assert layout.kept == round(1162.5 * MIB)
    assert layout.computing == {"CUDA0": 332136448, "CUDA1": 200 * MIB, "CUDA_Host": round(24.01 * MIB)}


def test_what_llama_cpp_says_replaces_the_rule() -> None:
    needs = (
        DeviceNeed(device="cpu", weights=1, kv=100, compute=50 * MIB, runtime=7),
        DeviceNeed(device="cuda:0", weights=2, kv=300, compute=1, runtime=8),
        DeviceNeed(device="cuda:1", weights=2, kv=400, compute=1, runtime=8),
    )
    layout = Layout(1600, {"CUDA0": 30, "CUDA1": 20, "CUDA_Host": 10 * MIB}, 5 * MIB)

    made = refined(MemoryEstimate(needs=needs), layout)

    assert made.source == "llama.cpp"
    assert [need.kv for need in made.needs] == [200, 600, 800]
    assert [need.compute for need in made.needs] == [20 * MIB, 30, 20]
    assert [need.weights for need in made.needs] == [1, 2, 2]


def test_memory_of_the_machine_that_is_reserved_and_never_touched_does_not_count() -> None:
    own = DeviceNeed(device="cpu", kv=1, compute=30 * MIB)

    (made,) = refined(MemoryEstimate(needs=(own,)), Layout(1, {"CPU": 400 * MIB}, 0)).needs

    assert made.compute == 30 * MIB


def test_what_the_rule_did_not_know_to_be_kept_is_where_the_weights_are() -> None:
    needs = (DeviceNeed(device="cpu", weights=1), DeviceNeed(device="cuda:0", weights=9))

    made = refined(MemoryEstimate(needs=needs), Layout(500, {}, 0))

    assert [need.kv for need in made.needs] == [0, 500]
