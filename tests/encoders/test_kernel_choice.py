from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from server.config.schema import KernelName
from server.encoders.encoder import EncodedItem, Encoder, EncoderBroken, Rows, Texts, TokenBudget
from server.encoders.kernel_choice import (
    Candidate,
    DeviceBroken,
    KernelFinding,
    Probe,
    load_with_best_kernel,
    measure_kernels,
)
from server.errors import LoadFailed
from server.types import ModelFacts


class Clock:
    """Goes on only when somebody works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class FakeKernel:
    """An encoder whose rows are as wrong, and whose forward passes as slow, as asked."""

    budget = TokenBudget(1024)

    def __init__(
        self, clock: Clock, *, token_s: float, error: float, first_s: float, batch_s: float, details: Mapping[str, str]
    ) -> None:
        self.facts = ModelFacts(context_length=256, details=dict(details))
        self.num_forwards = 0
        self.largest_batch = 0  # in tokens, with padding
        self._clock = clock
        self._token_s = token_s
        self._error = error
        self._first_s = first_s
        self._batch_s = batch_s

    def tokenize(self, inputs: Texts) -> list[EncodedItem]:
        return [EncodedItem([0] * len(text.split()), []) for text in inputs.inputs if isinstance(text, str)]

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        self.num_forwards += 1
        self.largest_batch = max(self.largest_batch, len(items) * max(item.num_tokens for item in items))
        self._clock.now_s += self._token_s * sum(item.num_tokens for item in items)
        self._clock.now_s += self._batch_s + (self._first_s if self.num_forwards == 1 else 0)
        return np.array([item.num_tokens + self._error for item in items], np.float32)


class Machine:
    """Candidates as asked, the clock that they share, and what has been loaded so far."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loaded: list[FakeKernel] = []
        texts = ["word " * length for length in (8, 12, 40, 90, 150, 200, 210, 220)]
        self.probe = Probe(
            lambda encoder: encoder.tokenize(Texts(texts)), lambda a, b: float(np.abs(a - b).max()), self.clock
        )

    def candidate(
        self,
        name: KernelName,
        against: KernelName | None = None,
        *,
        token_s: float = 1e-4,
        error: float = 0.0,
        first_s: float = 0.0,
        batch_s: float = 0.0,
        broken: str | Exception = "",
        batch_sizes: tuple[int, ...] = (),
    ) -> Candidate:
        def load(details: Mapping[str, str], batch_tokens: int | None = None) -> Encoder[Texts]:
            if broken:
                raise broken if isinstance(broken, Exception) else RuntimeError(broken)
            times = {"token_s": token_s, "first_s": first_s, "batch_s": batch_s}
            kernel = FakeKernel(self.clock, error=error, details=details, **times)
            if batch_tokens is not None:
                kernel.budget = TokenBudget(batch_tokens)
            self.loaded.append(kernel)
            return kernel

        return Candidate(name, load, against, tolerance=0.1, batch_sizes=batch_sizes)

    def measure(self, *candidates: Candidate) -> KernelFinding:
        return measure_kernels(candidates, self.probe)


@pytest.fixture
def machine() -> Machine:
    return Machine()


class FakeMemory:
    def __init__(self, found: KernelFinding | None = None, *, may_measure: bool = True) -> None:
        self.found = found
        self.is_allowed = may_measure
        self.events: list[str] = []

    def load(self) -> KernelFinding | None:
        return self.found

    def may_measure(self) -> bool:
        return self.is_allowed

    def begin(self) -> None:
        self.events.append("begin")

    def save(self, found: KernelFinding) -> None:
        self.events.append("save")
        self.found = found


def test_the_fastest_kernel_wins(machine: Machine) -> None:
    found = machine.measure(
        machine.candidate("torch-fp32"),
        machine.candidate("torch-mixed-bf16", "torch-fp32", token_s=5e-5),
        machine.candidate("torch-bf16", "torch-fp32", token_s=2e-5, error=0.01),
    )

    assert found.best == "torch-bf16"
    exact, mixed, _ = found.trials
    assert mixed.inputs_per_s == pytest.approx(2 * exact.inputs_per_s, rel=0.01)


def test_trials_have_batches_of_the_models_own_size(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKernel, "budget", TokenBudget(450))

    machine.measure(machine.candidate("torch-fp32"))

    assert machine.loaded[0].largest_batch == 2 * 220


def test_all_compute_the_first_ones_batches_whatever_their_own_size(machine: Machine) -> None:
    """Else their results would not be in the same order, nor their times those of the same work."""
    fp32 = machine.candidate("torch-fp32")
    bf16 = machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5)
    own_size = replace(bf16, load=lambda details, batch_tokens=None: bf16.load(details, batch_tokens or 300))

    found = machine.measure(fp32, own_size)

    assert [kernel.budget.max_tokens for kernel in machine.loaded] == [1024, 300]
    assert machine.loaded[0].largest_batch == machine.loaded[1].largest_batch > 300
    assert (found.best, found.trials[1].difference) == ("torch-bf16", 0)


def test_the_best_size_of_the_best_kernel_is_what_it_is_loaded_with(machine: Machine) -> None:
    """Half precision halves the work, so that a batch must be larger before its fixed cost does not matter."""
    sizes = (4096, 8192, 16_384, 32_768)
    fp32 = machine.candidate("torch-fp32", token_s=1e-6, batch_s=1e-4, batch_sizes=sizes)
    fp16 = machine.candidate("torch-fp16", "torch-fp32", token_s=5e-7, batch_s=4e-4, batch_sizes=sizes)
    memory = FakeMemory()

    first = load_with_best_kernel([fp32, fp16], machine.probe, configured="auto", memory=memory)
    again = load_with_best_kernel([fp32, fp16], machine.probe, configured="auto", memory=memory)

    assert memory.found is not None
    assert [trial.batch_tokens for trial in memory.found.trials] == [4096, 16_384]
    assert first.budget.max_tokens == again.budget.max_tokens == 16_384
    assert first.facts.details["kernel"] == "torch-fp16 (measured)"


def test_a_little_faster_is_not_worth_a_change(machine: Machine) -> None:
    fp32, bf16 = machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=0.96e-4)

    assert machine.measure(fp32, bf16).best == "torch-fp32"


@pytest.mark.parametrize("error", [0.2, float("nan")])
def test_wrong_results_never_serve(machine: Machine, error: float) -> None:
    fp32, bf16 = (
        machine.candidate("torch-fp32"),
        machine.candidate("torch-bf16", "torch-fp32", token_s=1e-6, error=error),
    )

    found = machine.measure(fp32, bf16)

    assert found.best == "torch-fp32"
    assert found.trials[1].failure == f"differs by {error}, more than 0.1"


def test_results_are_held_against_the_kernel_that_is_trusted_for_them(machine: Machine) -> None:
    """De-quantised weights may differ from the int8 network; their bf16 must agree with their own fp32."""
    onnx = machine.candidate("onnx", error=0.09)
    fp32 = machine.candidate("torch-fp32", "onnx")
    bf16 = machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5, error=-0.09)

    assert machine.measure(onnx, fp32, bf16).best == "torch-bf16"


def test_what_has_nothing_to_be_held_against_does_not_serve(machine: Machine) -> None:
    found = machine.measure(
        machine.candidate("onnx"),
        machine.candidate("torch-fp32", "onnx", broken="laid out otherwise"),
        machine.candidate("torch-bf16", "torch-fp32", token_s=1e-6),
    )

    assert found.best == "onnx"
    assert [trial.failure for trial in found.trials] == [
        "",
        "laid out otherwise",
        "there is nothing to hold it against: torch-fp32 has failed",
    ]


def test_an_emulated_number_format_is_given_up_at_once(machine: Machine) -> None:
    fp32, bf16 = machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=5e-2)

    found = machine.measure(fp32, bf16)

    assert found.trials[1].failure == "more than 5 times slower than the exact kernel"
    assert machine.loaded[1].num_forwards == 2
    assert found.took_s < 2.0


def test_a_slow_first_use_is_not_held_against_a_kernel(machine: Machine) -> None:
    fp32, bf16 = machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5, first_s=9)

    assert machine.measure(fp32, bf16).best == "torch-bf16"


def test_a_slow_machine_tries_fewer_inputs(machine: Machine) -> None:
    fp32 = machine.candidate("torch-fp32", token_s=0.01)
    bf16 = machine.candidate("torch-bf16", "torch-fp32", token_s=0.004)

    found = machine.measure(fp32, bf16)

    assert found.best == "torch-bf16"
    assert [kernel.num_forwards for kernel in machine.loaded] == [5, 5]  # of the smallest batch and the longest texts


def test_what_was_measured_is_used_remembered_and_told(machine: Machine) -> None:
    candidates = [
        machine.candidate("torch-fp32"),
        machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5, error=0.05),
    ]
    memory = FakeMemory()

    first = load_with_best_kernel(candidates, machine.probe, configured="auto", memory=memory)
    second = load_with_best_kernel(candidates, machine.probe, configured="auto", memory=memory)

    assert memory.events == ["begin", "save"]
    assert len(machine.loaded) == 4  # two trials and two loads
    assert first.facts.details["kernel"] == "torch-bf16 (measured)"
    assert second.facts.details["kernel"] == "torch-bf16 (remembered)"
    assert second.facts.details["kernel_parity"] == "differs from torch-fp32 by 0.05 at most"
    assert second.facts.details["kernel_speed"] == "192 inputs/s, torch-fp32 96"


def test_other_candidates_are_measured_again(machine: Machine) -> None:
    memory = FakeMemory(machine.measure(machine.candidate("torch-fp32")))
    candidates = [machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5)]

    encoder = load_with_best_kernel(candidates, machine.probe, configured="auto", memory=memory)

    assert encoder.facts.details["kernel"] == "torch-bf16 (measured)"


@pytest.mark.parametrize(
    ("configured", "kernel"),
    [("exact", "torch-fp32 (configured)"), ("torch-bf16", "torch-bf16 (configured)")],
)
def test_what_is_configured_is_not_measured(machine: Machine, configured: KernelName, kernel: str) -> None:
    candidates = [machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=9.0)]

    encoder = load_with_best_kernel(candidates, machine.probe, configured=configured, memory=FakeMemory())

    assert encoder.facts.details == {"kernel": kernel}
    assert len(machine.loaded) == 1


def test_a_kernel_that_is_not_there_is_refused(machine: Machine) -> None:
    with pytest.raises(LoadFailed, match="kernel is 'onnx' but this model can have torch-fp32 on this machine"):
        load_with_best_kernel([machine.candidate("torch-fp32")], machine.probe, configured="onnx", memory=None)


@pytest.mark.parametrize("memory", [lambda: None, lambda: FakeMemory(may_measure=False)], ids=["none", "died before"])
def test_where_nothing_is_measured_the_exact_kernel_serves(
    machine: Machine, memory: Callable[[], FakeMemory | None]
) -> None:
    candidates = [machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5)]

    encoder = load_with_best_kernel(candidates, machine.probe, configured="auto", memory=memory())

    assert encoder.facts.details == {"kernel": "torch-fp32 (rule)"}


def test_a_remembered_kernel_that_fails_gives_way_to_the_exact_one(machine: Machine) -> None:
    fp32, bf16 = machine.candidate("torch-fp32"), machine.candidate("torch-bf16", "torch-fp32", token_s=5e-5)
    memory = FakeMemory(machine.measure(fp32, bf16))
    gone = machine.candidate("torch-bf16", "torch-fp32", broken="out of memory")

    encoder = load_with_best_kernel([fp32, gone], machine.probe, configured="auto", memory=memory)

    assert encoder.facts.details == {"kernel": "torch-fp32 (rule)"}


def test_a_device_that_breaks_ends_the_process_and_is_not_tried_for_ever(machine: Machine) -> None:
    """CUDA refuses all that comes after: only another process can serve, and it finds that trials were begun."""
    broken = machine.candidate("torch-packed-fp16", "torch-fp32", broken=EncoderBroken("the GPU failed"))
    memory = FakeMemory()

    with pytest.raises(DeviceBroken, match="torch-packed-fp16 broke the device: the GPU failed"):
        load_with_best_kernel(
            [machine.candidate("torch-fp32"), broken], machine.probe, configured="auto", memory=memory
        )
    assert memory.events == ["begin"]


def test_a_device_that_is_broken_from_the_start_is_an_error_like_others(machine: Machine) -> None:
    """Another process would fare no better."""
    broken = machine.candidate("torch-fp32", broken=EncoderBroken("no kernel image for this device"))
    candidates = [broken, machine.candidate("torch-fp16", "torch-fp32")]

    with pytest.raises(EncoderBroken, match="no kernel image"):
        load_with_best_kernel(candidates, machine.probe, configured="auto", memory=FakeMemory())


def test_errors_of_the_model_itself_are_not_swallowed(machine: Machine) -> None:
    broken = machine.candidate("torch-fp32", broken="no such file")
    candidates = [broken, machine.candidate("torch-bf16", "torch-fp32")]

    with pytest.raises(RuntimeError, match="no such file"):
        load_with_best_kernel(candidates, machine.probe, configured="auto", memory=FakeMemory())
