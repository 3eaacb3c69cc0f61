"""Chat: Hearth against llama-server on the same llama.cpp, in one run, alternating, on the machine at hand.

    python -m benchmarks.chat                              # every load: docs/performance.md says how long that takes
    python -m benchmarks.chat --loads a16 b --keep-flags   # llama-server's best flags as chosen last time
    python -m benchmarks.chat --loads a1 --only-hearth --set kv=unified     # prints, writes nothing

For each load (chat_loads.py), first a short round with every set of flags that llama-server might be best with
(chat_tuning.py); then Hearth, llama-server's best and its defaults in turn, `--repetitions` times (chat_rounds.py).
Prompts are new each time. Writes each load's section of benchmarks/results/chat.json as soon as it is done.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from benchmarks.chat_contenders import WEIGHTS, Contender, Hearth, LlamaServer
from benchmarks.chat_loads import CAPACITY_SHARE, LOADS, Load, OpenLoop
from benchmarks.chat_rounds import measure
from benchmarks.chat_tuning import best_contenders, tune
from benchmarks.peers.llama_server import build_llama_server, version_of
from benchmarks.results import CHAT, Section, environment, load_results, save_section


def main() -> None:
    arguments = parse_arguments()
    hearth = Hearth(dict(pair.split("=", 1) for pair in arguments.set))
    for load in chosen(arguments.loads):
        last = load_results(arguments.out).get("loads", {})
        if arguments.only_hearth:
            measure(with_rate(load, last), {"hearth": hearth}, arguments.repetitions)
        else:
            section = compare(load, hearth, last, arguments.repetitions, keep_flags=arguments.keep_flags)
            save_section(section, "loads", load.name, path=arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", nargs="*", default=[], help="names or their first letters; default: all")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, default=CHAT)
    parser.add_argument("--keep-flags", action="store_true", help="llama-server's best flags as measured last time")
    parser.add_argument("--only-hearth", action="store_true", help="for trying things out; writes nothing")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys for Hearth's models.yaml")
    return parser.parse_args()


def chosen(wanted: Iterable[str]) -> list[Load]:
    names = set(wanted) or {load.name for load in LOADS}
    return [load for load in LOADS if names & {load.name, load.name[0]}]


def compare(load: Load, hearth: Hearth, last: Section, repetitions: int, *, keep_flags: bool) -> Section:
    """Measure one load, with all contenders side by side.

    Args:
        last: The sections of loads that were measured before.
    """
    about = {
        "title": load.title,
        "environment": {**environment(), "llama_server": version_of(build_llama_server()), "weights": WEIGHTS.name},
        "repetitions": repetitions,
    }
    sized = with_rate(load, last)
    tuned = next(each for each in LOADS if each.name == (load.flags_of or load.name))
    is_known = (keep_flags or load.flags_of) and tuned.name in last
    tuning = last[tuned.name]["tuning"] if is_known else tune(tuned)
    contenders: dict[str, Contender] = {"hearth": hearth, "defaults": LlamaServer(), **best_contenders(tuned, tuning)}
    if tuned is not load:
        contenders.pop("bare", None)  # it has no clients that come at random
    return {
        **about,
        "size": {name: value for name, value in vars(sized).items() if isinstance(value, int | float | str)},
        "tuning": {} if load.flags_of else tuning,
        "servers": measure(sized, contenders, repetitions),
    }


def with_rate(load: Load, last: Section) -> Load:
    """An open loop asks for a share of what llama-server was measured to do, in this run or an earlier one."""
    if not isinstance(load, OpenLoop):
        return load
    try:
        capacity = last[load.flags_of]["servers"]["best"]["figures"]["requests_per_s"]["median"]
    except KeyError:
        raise SystemExit(f"load {load.name} goes by what load {load.flags_of} measures; run that first") from None
    return dataclasses.replace(load, rate=CAPACITY_SHARE * capacity)


if __name__ == "__main__":
    main()
