from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import eval as eval_command
from server.config.schema import HearthConfig
from server.errors import ModelUnavailable
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
    async def models(_settings: HearthConfig) -> AsyncIterator[eval_command.Models]:
        assert embedder.facts is not None
        yield eval_command.Models(embedder, embedder.facts, FakeReranker())

    monkeypatch.setattr(eval_command, "models_of_stores", models)
    return embedder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(eval_command.app, ["retrieval", "--corpus", "corpus.jsonl", *arguments])


JUDGED = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv")


@pytest.mark.usefixtures("embedder")
def test_every_stage_is_measured_on_the_questions_that_are_judged() -> None:
    result = run(*JUDGED, "--json")

    report = json.loads(result.stdout)
    assert (report["num_documents"], report["num_queries"], report["failures"]) == (2, 1, [])
    assert set(report["stages"]) == {"dense", "lexical", "fused", "rerank", "final"}
    assert report["stages"]["final"]["nDCG@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert set(report["gains"]) == {"dense", "lexical", "fused", "rerank"}


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

    assert report["num_queries"] == 2
    assert report["stages"]["lexical"]["MRR"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--queries", "queries.jsonl"), 2, "--queries and --qrels belong together"),
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


def test_titles_that_ask_nothing_are_told() -> None:
    Path("corpus.jsonl").write_text('{"_id": "1", "text": "no title"}')

    assert "no title in corpus.jsonl is fit to ask" in run().stderr
