"""`hearth eval` with the default models in workers of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.conftest import RunHearth

pytestmark = pytest.mark.integration

TEXTS = {
    "Wing": "Lift is the force that holds an aeroplane up; the wing makes it.",
    "Bread": "Flour, water, salt and yeast are kneaded and baked.",
    "Kettle": "Water is boiled in it, for tea as a rule.",
    "Loom": "Threads are woven into cloth on it.",
}
QUESTIONS = {"Wing": "why do planes stay in the air", "Bread": "what do bakers make", "Loom": "how are fabrics made"}


def test_a_small_collection_is_measured_stage_by_stage(
    live_config: Path, run_hearth: RunHearth, tmp_path: Path
) -> None:
    corpus = [{"_id": title, "title": title, "text": text} for title, text in TEXTS.items()]
    queries = [{"_id": title, "text": question} for title, question in QUESTIONS.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels.tsv").write_text("\n".join(f"{title}\t{title}\t1" for title in QUESTIONS))
    files = ("--corpus", "corpus.jsonl", "--queries", "queries.jsonl", "--qrels", "qrels.tsv")

    done = run_hearth("eval", "retrieval", "--config", str(live_config), *files, "--json")

    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    [found] = report["configurations"]
    assert (report["num_queries"], found["rerank_failures"]) == (3, [])
    assert set(found["stages"]) >= {"dense", "rrf", "rerank", "final"}
    assert found["stages"]["dense"]["MRR"]["mean"] == 1.0


def test_a_store_of_a_running_server_is_measured_with_questions_of_its_own(
    live_server: ServerProcess, run_hearth: RunHearth, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for title, text in TEXTS.items():
        (folder / f"{title}.md").write_text(f"# All that is known about a {title.lower()}\n\n{text}")
    ways = [{"name": "meaning", "ranking_options": {"hybrid_search": {"embedding_weight": 1, "text_weight": 0}}}, {}]
    (tmp_path / "ways.json").write_text(json.dumps(ways))
    run_hearth("ingest", "notes", "--store", "measured", "--url", live_server.url)

    done = run_hearth(
        *("eval", "retrieval", "--store", "measured", "--known-item", "4", "--configurations", "ways.json", "--json"),
        *("--url", live_server.url),
    )

    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["judged"], report["num_queries"], report["unknown_items"]) == ("file", 4, [])
    assert all(found["stages"]["final"]["MRR"]["mean"] == 1.0 for found in report["configurations"])
    assert "lexical" not in report["configurations"][0]["stages"]
