from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from server.cli import eval as eval_command
from server.cli import eval_corpus
from server.config.schema import HearthConfig
from server.errors import ModelUnavailable
from server.rag.evaluation import MEASURES
from tests.fakes.models import FakeReranker
from tests.fakes.searched_store import TopicEmbedder

CORPUS = [
    {"_id": "cars", "title": "Cars that are red", "text": "the auto is red"},
    {"_id": "dogs", "title": "Dogs in the rain", "text": "a hound barks"},
]
QUERIES = [{"_id": "q1", "text": "vehicle of that colour"}, {"_id": "q2", "text": "not judged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\tcars\t2\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models.yaml").write_text("models:\n  - {id: echo, kind: chat, backend: script, script: [{text: hi}]}\n")
    Path("corpus.jsonl").write_text("\n".join(map(json.dumps, CORPUS)))
    Path("queries.jsonl").write_text("\n".join(map(json.dumps, QUERIES)))
    Path("qrels.tsv").write_text(QRELS)


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> TopicEmbedder:
    """In place of the models of models.yaml."""
    embedder = TopicEmbedder()

    @asynccontextmanager
    async def models(_settings: HearthConfig) -> AsyncIterator[eval_corpus.Models]:
        assert embedder.facts is not None
        yield eval_corpus.Models(embedder, embedder.facts, FakeReranker())

    monkeypatch.setattr(eval_corpus, "models_of_stores", models)
    return embedder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(eval_command.app, ["retrieval", "--corpus", "corpus.jsonl", *arguments])


JUDGED = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv")


@pytest.mark.usefixtures("embedder")
def test_every_stage_is_measured_on_the_questions_that_are_judged() -> None:
    result = run(*JUDGED, "--json")

    assert result.stdout, (result.stderr, result.exception)
    report = json.loads(result.stdout)
    [found] = report["configurations"]
    assert (report["num_documents"], report["num_queries"], found["rerank_failures"]) == (2, 1, [])
    assert set(found["stages"]) == {"dense", "lexical", "rrf", "rerank", "final"}
    assert found["stages"]["final"]["nDCG@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert set(found["gain_over_parts"]) == {"dense", "lexical", "rrf", "rerank"}


@pytest.mark.usefixtures("embedder")
def test_people_get_a_table() -> None:
    result = run(*JUDGED)

    lines = result.stdout.splitlines()
    assert lines[0].split() == ["RANKED", "BY", "nDCG@10", "recall@100", "MRR", "MAP@100"]
    assert [line.split() for line in lines if line.startswith("the search")] == [["the", "search", *["1.000"] * 4]]
    assert "questions: 1, documents: 2" in lines


@pytest.mark.usefixtures("embedder")
def test_without_judgements_titles_ask_for_their_documents() -> None:
    report = json.loads(run("--json").stdout)

    assert [query["text"] for query in report["queries"]] == ["Cars that are red", "Dogs in the rain"]
    assert report["configurations"][0]["stages"]["lexical"]["MRR"]["mean"] == 1.0


@pytest.mark.usefixtures("embedder")
def test_ways_to_search_are_compared_with_the_first() -> None:
    ways = [{"name": "words", "ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}}, {}]
    Path("ways.json").write_text(json.dumps(ways))

    report = json.loads(run(*JUDGED, "--configurations", "ways.json", "--json").stdout)
    lines = run(*JUDGED, "--configurations", "ways.json").stdout.splitlines()

    words, both = report["configurations"]
    assert ("dense" in words["stages"], "dense" in both["stages"]) == (False, True)
    assert (words["gain_over_first"], both["gain_over_first"]["MRR"]["mean"]) == (None, 0.0)
    assert [line for line in lines if line.endswith(":")][:2] == ["words:", "2:"]


@pytest.mark.usefixtures("embedder")
def test_a_way_to_search_that_is_wrong_is_named() -> None:
    Path("ways.json").write_text('[{"ranking_options": {"ranker": "best"}}]')

    result = run(*JUDGED, "--configurations", "ways.json")

    assert 'configurations[0].ranking_options.ranker is "best"' in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--queries", "queries.jsonl"), 2, "--queries and --qrels belong together"),
        (("--store", "notes"), 2, "give either --corpus or --store"),
        (("--configurations", "qrels.tsv"), 1, "qrels.tsv cannot be read"),
        (("--configurations", "queries.jsonl"), 1, "queries.jsonl cannot be read"),
        (("--chunk-tokens", "200", "--overlap-tokens", "150"), 2, "at most half"),
        (("--queries", "none.jsonl", "--qrels", "qrels.tsv"), 1, "none.jsonl cannot be read"),
        (("--queries", "queries.jsonl", "--qrels", "corpus.jsonl"), 1, "corpus.jsonl, line 2: expected query id"),
    ],
)
def test_what_is_wrong_is_told(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run(*arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_a_server_without_embedding_model_cannot_be_measured() -> None:
    result = run()

    assert result.exit_code == 1
    assert "this server has no embedding model" in result.stderr


def test_a_model_that_fails_is_told(embedder: TopicEmbedder) -> None:
    embedder.error = ModelUnavailable("model 'topics' has failed")

    result = run()

    assert (result.exit_code, result.stderr) == (1, "error: model 'topics' has failed\n")


def test_texts_that_ask_nothing_are_told() -> None:
    Path("corpus.jsonl").write_text('{"_id": "1", "text": "no title"}')

    assert "no question can be made of what is in corpus.jsonl" in run().stderr


# ---- a store of a running server


@dataclass
class FakeServer:
    """Has one store of two files, and notes what it is asked to evaluate."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def try_list(self, path: str) -> Iterator[dict[str, Any]]:
        if path == "/v1/vector_stores":
            yield {"id": "vs_1", "name": "notes", "status": "completed"}
        else:
            assert path == "/v1/vector_stores/vs_1/files"
            yield from ({"id": f"file-{n}", "x": {"filename": name}} for n, name in enumerate(("cars", "a b"), 1))

    def try_request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (method, path) == ("POST", "/v1/vector_stores/vs_1/evaluate")
        self.asked.append(body)
        return {"num_queries": 1, "unknown_items": ["file-9"], "configurations": [MEASURED], "queries": []}


MEASURE = {name: {"mean": 0.5, "low": 0.4, "high": 0.6} for name in MEASURES}
MEASURED = {
    "name": "1",
    "stages": {"dense": MEASURE, "final": MEASURE},
    "gain_over_parts": {"dense": MEASURE},
    "gain_over_first": None,
    "rerank_failures": ["it was slow"],
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    server = FakeServer()
    monkeypatch.setattr(eval_command, "connect", lambda *_: server)
    return server


def run_on_store(*arguments: str) -> Result:
    return CliRunner().invoke(eval_command.app, ["retrieval", "--store", "notes", *arguments])


def test_questions_are_made_of_a_store(server: FakeServer) -> None:
    result = run_on_store("--known-item", "7", "--seed", "3", "--text-weight", "2")

    [asked] = server.asked
    weights = {"embedding_weight": 1.0, "text_weight": 2.0}
    assert asked["known_item"] == {"num_questions": 7, "seed": 3}
    assert asked["configurations"] == [{"ranking_options": {"hybrid_search": weights}}]
    assert "not there, though they are judged: file-9" in result.stdout
    assert "some searches did without the reranker: it was slow" in result.stdout


def test_judgements_of_a_store_name_files_by_name_or_id(server: FakeServer) -> None:
    Path("qrels.tsv").write_text("q1\tcars\t2\nq1\tfile-2\t-1\n")

    run_on_store(*JUDGED, "--json")

    [asked] = server.asked
    assert asked["queries"] == [{"id": "q1", "text": "vehicle of that colour"}]
    assert asked["qrels"] == [
        {"query_id": "q1", "file_id": "file-1", "relevance": 2},
        {"query_id": "q1", "file_id": "file-2", "relevance": 0},
    ]


@pytest.mark.usefixtures("server")
def test_a_store_that_is_not_there_is_told() -> None:
    result = CliRunner().invoke(eval_command.app, ["retrieval", "--store", "other"])

    assert (result.exit_code, "no vector store named 'other'" in result.stderr) == (1, True)
