"""The command line that the embeddings and the rerank benchmark share, and the sections that they write."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.encoder_loads import Load
from benchmarks.encoder_parity import parity
from benchmarks.encoder_rounds import Entrant, measure
from benchmarks.peers.infinity import install_infinity, versions_of
from benchmarks.results import Section, environment, save_section


def run_benchmark(
    description: str | None, entrants: Callable[[], list[Entrant]], loads: Sequence[Load], *, path: Path
) -> None:
    """Measure what the command line asks for, and put it into sections of a JSON file."""
    arguments = parse_arguments(description, path)
    chosen = [load for load in loads if not arguments.loads or load.name in ("probe", *arguments.loads)]
    if arguments.only_hearth:
        mine = [entrant for entrant in entrants() if entrant.role == "hearth"]
        measure(mine, chosen, arguments.repetitions, save=lambda _: None)
        return
    about = environment()
    about["versions"] |= {f"infinity: {name}": number for name, number in versions_of(install_infinity()).items()}

    def save(servers: dict[str, Section]) -> None:
        for load in chosen:
            if load.name == "probe":
                save_section(parity(servers[load.name]), "parity", path=arguments.out)
            elif load.name in servers:
                save_section(section(load, servers[load.name], about), "loads", load.name, path=arguments.out)

    measure(entrants(), chosen, arguments.repetitions, save=save)


def parse_arguments(description: str | None, path: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", nargs="*", default=[], help="names, as in encoder_loads.py; default: all")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, default=path)
    parser.add_argument("--only-hearth", action="store_true", help="for trying things out; writes nothing")
    return parser.parse_args()


def section(load: Load, servers: Section, about: Section) -> Section:
    return {
        "title": load.title,
        "environment": about,
        "repetitions": max(len(figures["values"]) for each in servers.values() for figures in each["figures"].values()),
        "size": {name: value for name, value in vars(load).items() if isinstance(value, int | float)},
        "servers": servers,
    }
