"""Grounded chat: Hearth, which finds the sources, against llama-server, which is sent the very prompts with them.

    python -m benchmarks.rag                               # docs/performance.md says how long that takes
    python -m benchmarks.rag --loads fused --repetitions 1
    python -m benchmarks.rag --keep-flags                  # llama-server's best flags as chosen last time

A store is filled with real documents (python_docs.py). Eight clients ask what people might ask of them
(rag_questions.py), each its next question when the last one is answered; every question once, in an order that is new
in each repetition and the same for all. Hearth embeds the question, searches by vector and word, and answers from
numbered sources; in the load `reranked` its cross-encoder has a say about them. What its model was given to read is
noted beforehand (rag_prompts.py), and that is what llama-server is sent, with the same sampling and length of answers,
and as many KV cells; so is Hearth in the role `rendered`, which tells what finding and citing sources costs.

All start anew in each repetition and take turns in an order that rotates; llama-server's flags are chosen by short
rounds beforehand, as in benchmarks/chat.py, and its defaults take part too. Writes benchmarks/results/rag.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import httpx

from benchmarks.chat_contenders import WEIGHTS, Contender, Hearth, LlamaServer, llama_server_candidates
from benchmarks.chat_rounds import measure
from benchmarks.chat_tuning import choose_best, try_out
from benchmarks.embeddings import CACHED as EMBEDDER
from benchmarks.ingestion import TIMEOUT_S, Library, upload
from benchmarks.peers.llama_server import build_llama_server, version_of
from benchmarks.python_docs import python_documents
from benchmarks.rag_bars import required
from benchmarks.rag_contenders import RAG_SETTINGS, GroundedHearth, entries
from benchmarks.rag_loads import RANKERS, TITLES, asked_body, load_of, questions, rendered_body, sharing
from benchmarks.rag_prompts import noted_prompts
from benchmarks.rag_questions import WARM_UP
from benchmarks.results import RAG, Section, environment, load_results, save_section
from benchmarks.servers import hearth, write_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", nargs="*", choices=RANKERS, default=list(RANKERS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--questions", type=int, help="the first so many only, for trying things out")
    parser.add_argument("--keep-flags", action="store_true", help="llama-server's best flags as measured last time")
    parser.add_argument("--out", type=Path, default=RAG)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), questions()[: arguments.questions])
        for name in arguments.loads:
            last = load_results(arguments.out).get("loads", {}).get(name, {}) if arguments.keep_flags else {}
            section = rig.compare(name, arguments.repetitions, tuning=last.get("tuning"))
            save_section(section, "loads", name, path=arguments.out)
            save_section(required(load_results(arguments.out)["loads"]), "bars", path=arguments.out)


class Rig:
    """A data directory with a store, and what is asked of it."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self._config = folder / "models.yaml"
        self._data_dir = folder / "data"
        self._store_id = make_store(self._data_dir)
        self._texts = texts

    def compare(self, name: str, repetitions: int, *, tuning: Section | None) -> Section:
        """Measure one load, with all contenders side by side.

        Args:
            tuning: How llama-server did with each set of flags; None: find out.
        """
        about = {
            "title": TITLES[name],
            "environment": {**environment(), "llama_server": version_of(build_llama_server()), "weights": WEIGHTS.name},
            "repetitions": repetitions,
        }
        warm, *asked = (asked_body(text, self._store_id, RANKERS[name]) for text in (WARM_UP, *self._texts))
        asking = load_of(name, asked, warm)
        write_config(self._config, entries(asking), data_dir=self._data_dir, rag=RAG_SETTINGS)
        read_first, *read = noted_prompts(self._config, [warm, *asked])
        load = load_of(name, [rendered_body(messages) for messages in read], rendered_body(read_first))
        candidates = llama_server_candidates(load)
        tuning = tuning or try_out(load, candidates)
        best = choose_best(load, candidates, tuning)
        contenders: dict[str, Contender] = {
            "hearth": GroundedHearth(asking, self._data_dir),
            "rendered": Hearth(),
            "defaults": LlamaServer(),
            **({"best": best} if best else {}),
        }
        return {
            **about,
            "size": {name: value for name, value in vars(load).items() if isinstance(value, int | float | str)},
            "sharing": sharing(read),
            "tuning": tuning,
            "servers": measure(load, contenders, repetitions),
        }


def make_store(data_dir: Path) -> str:
    """Fill a store with the documents, cut as `hearth ingest` has them cut; return its id."""
    with (
        hearth(EMBEDDER, data_dir=data_dir) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=TIMEOUT_S) as http,
    ):
        return Library(http, upload(http, python_documents())).ingest()


if __name__ == "__main__":
    main()
