"""Which flags llama-server is best with on a load, and how the bare loop is: one short run of each possibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.chat_contenders import Contender, bare_candidates, llama_server_candidates
from benchmarks.chat_loads import Load
from benchmarks.chat_rounds import Record
from benchmarks.results import Section
from server.loadgen.prompts import new_seed

LOAD_WITH_BARE_LIMIT = "a16"


def tune(load: Load) -> dict[str, Section]:
    """For each role the short runs, by name."""
    return {role: try_out(load, candidates) for role, candidates in _candidates(load).items()}


def best_contenders(load: Load, tuning: Mapping[str, Section]) -> dict[str, Contender]:
    """For each role whoever did best; without the roles that nobody can fill."""
    best = {role: choose_best(load, each, tuning[role]) for role, each in _candidates(load).items()}
    return {role: contender for role, contender in best.items() if contender is not None}


def try_out(load: Load, candidates: Sequence[Contender]) -> dict[str, Section]:
    """One short run of each; all get the same prompts."""
    seed = new_seed()
    records = {each.name: Record() for each in candidates}
    for candidate in candidates:
        records[candidate.name].run(candidate, load, seed, load.num_tuning_requests)
    return {
        name: vars(record.outcomes[0]) if record.outcomes else {"rejected": record.rejected}
        for name, record in records.items()
    }


def choose_best(load: Load, candidates: Sequence[Contender], runs: Mapping[str, Section]) -> Contender | None:
    """Whoever answers all comes first, then whoever has the best figure; None when nobody takes part."""
    sign = 1 if load.more_is_better else -1

    def rank(each: Contender) -> tuple[float, float]:
        figures = runs[each.name]["figures"]
        return figures["completion_rate"], sign * figures[load.figure]

    taking_part = [each for each in candidates if load.figure in runs[each.name].get("figures", {})]
    return max(taking_part, key=rank, default=None)


def _candidates(load: Load) -> dict[str, Sequence[Contender]]:
    peers: dict[str, Sequence[Contender]] = {"best": llama_server_candidates(load)}
    return {**peers, "bare": bare_candidates()} if load.name == LOAD_WITH_BARE_LIMIT else peers
