from __future__ import annotations

from typing import Any

from benchmarks.figures import Outcome
from benchmarks.gpu_chat import REHEARSAL, Scale, _best, gpu_loads
from benchmarks.gpu_limits import IdleSampler
from benchmarks.gpu_table import bandwidth_share, chat_bars, gpu_table


def spread(value: float) -> dict[str, float]:
    return {"median": value, "min": value, "max": value}


def load(title: str, **servers: dict[str, float]) -> dict[str, Any]:
    return {
        "title": title,
        "servers": {
            role: {"name": role, "figures": {name: spread(value) for name, value in figures.items()}}
            for role, figures in servers.items()
        },
    }


RESULTS: dict[str, Any] = {
    "limits": {"device": "NVIDIA H100", "copy_gb_per_s": 2500.0, "matmul_tflop_per_s": 700.0},
    "models": {
        "qwen3-8b": {
            "quantisation": "Q4_K_M",
            "loads": {
                "u1": load("one", hearth={"tokens_per_s": 150, "stream_tokens_per_s": 160}, best={"tokens_per_s": 160}),
                "u64": load("many", hearth={"tokens_per_s": 3000}, best={"tokens_per_s": 2000}),
                "u32": load("some", hearth={"tokens_per_s": 2000, "gpu_idle_share": 0.04}, best={"tokens_per_s": 1900}),
            },
        }
    },
    "encoders": {"embed": load("texts", hearth={"items_per_s": 500}, script={"items_per_s": 200})},
}


def test_the_table_judges_each_bar() -> None:
    rows = {
        (cells[1], cells[2], cells[5]): cells
        for line in gpu_table(RESULTS, Scale()).splitlines()
        if (cells := [cell.strip() for cell in line.split("|")[1:-1]])
    }

    assert rows["one", "tok/s", "best"][6:] == ["0.94", ">= 0.97", "**no**"]
    assert rows["many", "tok/s", "best"][6:] == ["1.50", ">= 1.2", "yes"]
    assert rows["some", "GPU idle", ""][7:] == ["<= 5 %", "yes"]
    assert rows["texts", "texts/s", "script"][6:] == ["2.50", ">= 2", "yes"]


def test_decoding_is_held_against_what_the_card_can_read() -> None:
    share = bandwidth_share("qwen3-8b", RESULTS)

    assert share is not None
    assert 0.27 < share < 0.31  # 160 tokens of some 4.6 GB each, at 2,500 GB/s


def test_without_a_card_nothing_is_claimed() -> None:
    results = {**RESULTS, "limits": {"device": "cpu", "copy_gb_per_s": 10.0}}

    assert bandwidth_share("qwen3-8b", results) is None
    assert "not measured" in gpu_table(results, Scale())


def test_every_bar_of_chat_has_a_load() -> None:
    names = {each.name for each in gpu_loads(Scale())}

    assert {bar.load for bar in chat_bars(Scale())} <= names
    assert {"u1", "u8", "u32", "u64", "s64"} == names


def test_the_best_flags_are_chosen_for_each_load_by_itself() -> None:
    first, *_ = gpu_loads(REHEARSAL)
    runs = {
        "fast but failing": [Outcome({"completion_rate": 0.5, "tokens_per_s": 900})],
        "slow": [Outcome({"completion_rate": 1.0, "tokens_per_s": 100})],
        "fast": [Outcome({"completion_rate": 1.0, "tokens_per_s": 200})],
        "absent": [],
    }

    assert _best(first, runs)["name"] == "fast"
    assert _best(first, {})["figures"] == {}


def test_a_machine_without_a_card_has_no_idle_share() -> None:
    with IdleSampler() as sampler:
        pass

    assert sampler.idle_share is None
