"""Which kernel runs an encoder fastest on this machine, among those whose results are right.

A kernel is one way to compute a model's network: a library with a number format and a layout. Candidates are loaded
one after the other, never two at a time, run over the same inputs, and held against one that is trusted. Knows neither
torch nor ONNX: a candidate is whatever loads an `Encoder`. Docs: docs/decisions/0011-encoder-kernels.md.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from server.config.schema import KernelName
from server.encoders.batch_size import find_batch_size
from server.encoders.encoder import EncodedItem, Encoder, EncoderBroken, Rows
from server.errors import LoadFailed

logger = logging.getLogger(__name__)

MIN_GAIN = 1.05
"""A challenger must be so much faster than a candidate named before it: less is noise."""

TRIAL_S = 0.3
"""How long a candidate is timed, and how much the first may chew before the rest of the inputs is left out. Three
candidates take about a second, besides loading them."""

MAX_SLOWDOWN, GRACE_S = 5.0, 0.25
"""A challenger is given up once it takes so many times as long for a batch as the first candidate, and so long besides:
a number format without instructions of its own can be a hundred times slower. The grace is for what is small, where
each operation costs more than what it computes, and for the first use of a shape."""


How = Literal["measured", "remembered", "configured", "rule"]


class KernelTrial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a candidate achieved.

    Attributes:
        inputs_per_s: Over inputs of mixed lengths in batches, all cores; 0 if the trial came to no end.
        batch_tokens: Where sizes of batches were compared: the least that is about as fast as larger ones; else 0.
        against: The candidate that its results were held against; empty for the first.
        difference: From those, at worst: of embeddings 1 - cosine, of rerank scores after the sigmoid.
        failure: Why it may not serve; empty if it may.
    """

    name: KernelName
    inputs_per_s: float = 0.0
    batch_tokens: int = 0
    against: str = ""
    difference: float = 0.0
    failure: str = ""


class KernelFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What the trials of a model have shown, in their order; the first is the exact one."""

    best: KernelName
    trials: tuple[KernelTrial, ...]
    took_s: float
    measured_at: str

    @property
    def best_trial(self) -> KernelTrial:
        return next(trial for trial in self.trials if trial.name == self.best)

    def describe(self) -> dict[str, str]:
        """For people: how fast the best is, and what that costs in accuracy."""
        exact, best = self.trials[0], self.best_trial
        speed, parity = f"{best.inputs_per_s:.0f} inputs/s", "exact"
        if best is not exact:
            speed += f", {exact.name} {exact.inputs_per_s:.0f}"
            parity = f"differs from {best.against} by {best.difference:.1g} at most"
        return {"kernel_speed": speed, "kernel_parity": parity}


class Load(Protocol):
    def __call__(self, details: Mapping[str, str], batch_tokens: int | None = None) -> Encoder[Any]:
        """Load a model.

        Args:
            details: What is to be told to people besides what it finds out itself.
            batch_tokens: What it is to compute at a time; None: what is usual.
        """


@dataclass(frozen=True)
class Candidate:
    """A kernel that the model's files and the machine allow.

    Attributes:
        load: Loads the model with it.
        batch_sizes: How many tokens it may compute at a time, to be compared; none: as many as it says itself.
        against: The candidate, named before it, from whose results its own may differ by `tolerance` at most.
    """

    name: KernelName
    load: Load
    against: KernelName | None = None
    tolerance: float = 0.0
    batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Probe:
    """What candidates are tried with.

    Attributes:
        tokenize: Gives the inputs, as the loaded encoder tokenises them.
        difference: Between two results for the same inputs, at worst.
        clock: In seconds.
    """

    tokenize: Callable[[Encoder[Any]], list[EncodedItem]]
    difference: Callable[[Rows, Rows], float]
    clock: Callable[[], float] = time.perf_counter


class DeviceBroken(Exception):
    """A challenger has made the device refuse whatever comes after it in this process. Another process may well serve,
    without that challenger."""


class KernelMemory(Protocol):
    """Remembers what was found about one model as configured, on this machine."""

    def load(self) -> KernelFinding | None: ...

    def may_measure(self) -> bool:
        """Whether earlier trials have not died too often."""

    def begin(self) -> None:
        """Note that trials begin, so that the next process knows if this one dies of them."""

    def save(self, found: KernelFinding) -> None: ...


def load_with_best_kernel(
    candidates: Sequence[Candidate],
    probe: Probe,
    *,
    configured: Literal["auto", "exact"] | KernelName,
    memory: KernelMemory | None,
) -> Encoder[Any]:
    """Load a model with the kernel that is configured, or else was found to be the fastest here.

    Args:
        candidates: The exact one first, then others, those that change results less before those that change more.
        memory: None: nothing is measured, and `auto` is `exact`.

    Raises:
        LoadFailed: The configured kernel is none of the candidates, or as its `load` does.
        DeviceBroken: By a trial: the process has to end, and the next one knows that trials were begun.
    """
    exact, by_name = candidates[0], {candidate.name: candidate for candidate in candidates}
    if configured == "exact":
        return _load(exact, "configured")
    if configured != "auto":
        if configured not in by_name:
            raise LoadFailed(
                f"kernel is {configured!r} but this model can have {', '.join(by_name)} on this machine; change it"
            )
        return _load(by_name[configured], "configured")
    if len(candidates) == 1 or memory is None:
        return _load(exact, "rule")
    finding, how = _remembered_or_measured(candidates, probe, memory)
    if finding is None:
        return _load(exact, how)
    try:
        return _load(by_name[finding.best], how, finding)
    except Exception:
        if finding.best == exact.name:
            raise
        logger.warning("the fastest kernel cannot be loaded; the exact one is used", exc_info=True)
        return _load(exact, "rule")


def _load(candidate: Candidate, how: How, finding: KernelFinding | None = None) -> Encoder[Any]:
    kernel = {"kernel": f"{candidate.name} ({how})"}
    if finding is None:
        return candidate.load(kernel)
    return candidate.load(kernel | finding.describe(), finding.best_trial.batch_tokens or None)


def _remembered_or_measured(
    candidates: Sequence[Candidate], probe: Probe, memory: KernelMemory
) -> tuple[KernelFinding | None, How]:
    """Return what was found out, now or earlier. Only speed depends on it: whatever goes wrong, None will do."""
    try:
        found = memory.load()
        if found and [trial.name for trial in found.trials] == [candidate.name for candidate in candidates]:
            return found, "remembered"
        if not memory.may_measure():
            logger.warning("measuring kernels has not come to its end before; the exact one is used")
            return None, "rule"
        found = measure_and_remember(candidates, probe, memory)
    except DeviceBroken:
        raise
    except Exception:
        logger.warning("measuring kernels failed; the exact one is used", exc_info=True)
        return None, "rule"
    extra = {"best": found.best, "took_s": found.took_s, "trials": [msgspec.to_builtins(each) for each in found.trials]}
    logger.info("kernels measured", extra=extra)
    return found, "measured"


def measure_and_remember(candidates: Sequence[Candidate], probe: Probe, memory: KernelMemory | None) -> KernelFinding:
    """As `measure_kernels`, for the next load of the model too."""
    if memory:
        memory.begin()
    found = measure_kernels(candidates, probe)
    if memory:
        memory.save(found)
    return found


# ---- trials


def measure_kernels(candidates: Sequence[Candidate], probe: Probe) -> KernelFinding:
    """Try all candidates and find the fastest that may serve. What a trial has loaded is freed before the next.

    Raises:
        Exception: The first candidate fails; a failure of another only counts against it.
        DeviceBroken: By another.
    """
    started = probe.clock()
    runs: dict[KernelName, _Run] = {}
    for candidate in candidates:
        runs[candidate.name] = _try(candidate, probe, runs)
        gc.collect()
    best, *challengers = (run.trial for run in runs.values())
    for trial in challengers:
        if not trial.failure and trial.inputs_per_s > MIN_GAIN * best.inputs_per_s:
            best = trial
    return KernelFinding(
        best=best.name,
        trials=tuple(run.trial for run in runs.values()),
        took_s=round(probe.clock() - started, 1),
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


@dataclass(frozen=True)
class _Run:
    """A trial with what later ones need: `batch_s[i]` is the time of batch i. All keep to the first one's `max_tokens`,
    so that rows are in the same order. No rows: it came to no end."""

    trial: KernelTrial
    rows: Rows | None = None
    max_tokens: int = 0
    batch_s: tuple[float, ...] = ()


class _GaveUp(Exception):
    """A challenger that need not be run to its end; says why."""


def _try(candidate: Candidate, probe: Probe, runs: Mapping[KernelName, _Run]) -> _Run:
    if candidate.against is None:
        return _run(candidate, probe)
    try:
        trusted = runs[candidate.against]
        if trusted.rows is None or trusted.trial.failure:
            raise _GaveUp(f"there is nothing to hold it against: {candidate.against} has failed")
        run = _run(candidate, probe, first=next(iter(runs.values())))
        assert run.rows is not None
        difference = probe.difference(run.rows, trusted.rows)
    except EncoderBroken as exc:
        raise DeviceBroken(f"{candidate.name} broke the device: {exc}") from exc
    except Exception as exc:
        level = logging.INFO if isinstance(exc, _GaveUp) else logging.WARNING
        logger.log(level, "kernel cannot serve", extra={"kernel": candidate.name, "reason": str(exc)})
        failure = " ".join(str(exc).split()) or type(exc).__name__
        return _Run(KernelTrial(name=candidate.name, against=candidate.against, failure=failure))
    is_right = difference <= candidate.tolerance  # false for NaN too
    failure = "" if is_right else f"differs by {difference:.2g}, more than {candidate.tolerance:g}"
    return replace(run, trial=msgspec.structs.replace(run.trial, difference=difference, failure=failure))


def _run(candidate: Candidate, probe: Probe, *, first: _Run | None = None) -> _Run:
    """Compute batches for `TRIAL_S`, but each at least twice; of each, its best time counts. Then compare sizes.

    Args:
        first: The first candidate's run; its batches are computed. None for that candidate itself, which leaves out
            those that do not fit into the time.

    Raises:
        _GaveUp: This is far slower than the first.
    """
    encoder = candidate.load({})
    items, pace = probe.tokenize(encoder), first.batch_s if first else ()
    max_tokens = first.max_tokens if first else encoder.budget.max_tokens
    batches = _batches(items, max_tokens)
    stopwatch = _Stopwatch(encoder, probe.clock)
    stopwatch.time(batches[0])  # buffers, generated code: paid once
    started = probe.clock()
    best_s, rows = list[float](), list[Rows]()
    for index, batch in enumerate(batches[: len(pace) or None]):
        seconds, row = stopwatch.time(batch)
        if pace and seconds > MAX_SLOWDOWN * pace[index] + GRACE_S:
            raise _GaveUp(f"more than {MAX_SLOWDOWN:g} times slower than the exact kernel")
        best_s.append(seconds)
        rows.append(row)
        if not pace and probe.clock() - started > TRIAL_S:
            break
    while True:
        for index, batch in enumerate(batches[: len(best_s)]):
            best_s[index] = min(best_s[index], stopwatch.time(batch)[0])
        if probe.clock() - started > TRIAL_S:
            break
    inputs_per_s, batch_tokens = round(sum(map(len, rows)) / sum(best_s), 1), 0
    if candidate.batch_sizes:
        size = find_batch_size(encoder, items, candidate.batch_sizes, probe.clock)
        inputs_per_s, batch_tokens = size.inputs_per_s, size.max_tokens
    trial = KernelTrial(
        name=candidate.name, inputs_per_s=inputs_per_s, batch_tokens=batch_tokens, against=candidate.against or ""
    )
    return _Run(trial, np.concatenate(rows), max_tokens, tuple(best_s))


@dataclass(frozen=True)
class _Stopwatch:
    encoder: Encoder[Any]
    clock: Callable[[], float]

    def time(self, batch: list[EncodedItem]) -> tuple[float, Rows]:
        """Compute a batch; return how long it took, and its rows."""
        started = self.clock()
        rows = self.encoder.forward(batch)
        return self.clock() - started, rows


def _batches(items: list[EncodedItem], max_tokens: int) -> list[list[EncodedItem]]:
    """As the batcher makes them, of like length, longest first; and before them one small enough for any machine.

    Padded, whatever the encoder: all candidates are to be timed with the same batches.
    """
    batches: list[list[EncodedItem]] = []
    items = sorted(items, key=lambda item: item.num_tokens)
    for item in items:
        if not batches or (len(batches[-1]) + 1) * item.num_tokens > max_tokens:
            batches.append([])
        batches[-1].append(item)
    return [items[:1], *reversed(batches)]
