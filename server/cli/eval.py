"""`hearth eval`: how well a test collection, or a vector store of a running server, is searched."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from server.api.body import parse_body
from server.api.evaluation import evaluation_body
from server.api.schemas.evaluation import MAX_TIMEOUT_S, EvaluationRequest
from server.cli.client import ApiKeyOption, JsonObject, JsonOption, ServerClient, ServerFailure, UrlOption, connect
from server.cli.eval_corpus import evaluate_corpus
from server.cli.eval_report import print_report
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, fail, load_or_exit
from server.cli.stores import existing_store
from server.errors import HearthError
from server.rag.beir import Passage, read_corpus, read_judgements
from server.rag.documents import ChunkingStrategy
from server.rag.evaluation import Judgements
from server.rag.known_items import HeadedText, known_items

app = typer.Typer(help="Measure how good answers are.", no_args_is_help=True)

NUM_MADE = 100
"""Questions that are made of a store where nothing else is said."""

Ways = list[Any]
"""`configurations` of the endpoint, not yet checked."""


@app.callback()
def evaluate() -> None:
    """Measure how good answers are."""


@app.command()
def retrieval(
    corpus: Annotated[Path | None, typer.Option(help='JSON lines of {"_id", "title", "text"}.')] = None,
    store: Annotated[
        str | None, typer.Option("--store", "-s", help="In place of a corpus: a vector store of a running server.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help='JSON lines of {"_id", "text"} [default: headings ask for what is below them]')
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Lines of query, document (of a store: file name or id) and gain, with tabs.")
    ] = None,
    known_item: Annotated[
        int | None, typer.Option("--known-item", min=1, help="Most questions that are made where none are given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws them.")] = 0,
    configurations: Annotated[
        Path | None, typer.Option(help="JSON list of ways to search, which are compared; see docs/api.md.")
    ] = None,
    chunk_tokens: Annotated[int, typer.Option(min=100, max=4096, help="Of a corpus: most tokens of a chunk.")] = 800,
    overlap_tokens: Annotated[int, typer.Option(min=0, help="Of a corpus: tokens that chunks share.")] = 400,
    embedding_weight: Annotated[float, typer.Option(min=0, help="Of the search by meaning.")] = 1.0,
    text_weight: Annotated[float, typer.Option(min=0, help="Of the search by words.")] = 1.0,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask questions with known answers, and say how good each stage of the search is.

    A corpus needs no server: it is cut, embedded and searched with the models that models.yaml gives to vector stores.
    """
    if (corpus is None) == (store is None):
        fail("give either --corpus or --store", code=ExitCode.WRONG_INPUT)
    if (queries is None) != (qrels is None):
        fail("--queries and --qrels belong together; give both, or neither", code=ExitCode.WRONG_INPUT)
    if 2 * overlap_tokens > chunk_tokens:
        fail(
            f"--overlap-tokens is {overlap_tokens}; at most half of the {chunk_tokens} --chunk-tokens",
            code=ExitCode.WRONG_INPUT,
        )
    weights = {"embedding_weight": embedding_weight, "text_weight": text_weight}
    chunking = ChunkingStrategy(kind="static", max_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
    try:
        ways = _read_ways(configurations) if configurations else [{"ranking_options": {"hybrid_search": weights}}]
        given = read_judgements(queries, qrels) if queries and qrels else None
        if store is not None:
            made = {"num_questions": known_item or NUM_MADE, "seed": seed}
            report = _evaluate_store(connect(url, config, api_key), store, given, made=made, ways=ways)
        else:
            assert corpus is not None
            passages = read_corpus(corpus)
            judgements = given or _made(corpus, passages, known_item, seed)
            report = _evaluate_corpus(config, passages, judgements, chunking, ways)
    except HearthError as exc:
        fail(exc.message)
    except ServerFailure as exc:
        fail(str(exc))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        print_report(report)


def _read_ways(path: Path) -> Ways:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        fail(f"{path} cannot be read: {exc}")
    if not isinstance(found, list):
        fail(f"{path}: expected a list of ways to search")
    return found


# ---- a test collection


def _made(corpus: Path, passages: list[Passage], num_questions: int | None, seed: int) -> Judgements:
    """Questions that headings ask; leave with one line if there are none."""
    texts = [HeadedText(passage.id, passage.title, passage.text) for passage in passages]
    made = known_items(texts, num_questions=num_questions, seed=seed)
    if not made.judged:
        fail(f"no question can be made of what is in {corpus}; give --queries and --qrels")
    return made


def _evaluate_corpus(
    config: Path | None, passages: list[Passage], judgements: Judgements, chunking: ChunkingStrategy, ways: Ways
) -> JsonObject:
    """Questions come from files of any size; of what the endpoint takes, only the ways to search are its own."""
    checked = parse_body(json.dumps({"known_item": {}, "configurations": ways}).encode(), EvaluationRequest)
    # Logs of workers would stand between the lines, and models that are not used need not be there.
    settings = load_or_exit(config, flags={"log_level": "warning"}, require_files=False).config
    evaluation = asyncio.run(evaluate_corpus(settings, passages, judgements, chunking, checked.ways()))
    return {"num_documents": len(passages), **evaluation_body(evaluation)}


# ---- a store of a running server


def _evaluate_store(
    client: ServerClient, store: str, given: Judgements | None, *, made: JsonObject, ways: Ways
) -> JsonObject:
    store_id = existing_store(client, store)
    questions = {"known_item": made} if given is None else _questions(client, store_id, given)
    body = {**questions, "configurations": ways, "timeout_s": MAX_TIMEOUT_S}
    return client.try_request("POST", f"/v1/vector_stores/{store_id}/evaluate", body)


def _questions(client: ServerClient, store_id: str, judgements: Judgements) -> JsonObject:
    """As the endpoint takes them. A name that several files have means all of them."""
    ids: dict[str, list[str]] = {}
    for document in client.try_list(f"/v1/vector_stores/{store_id}/files"):
        ids.setdefault(document["x"]["filename"], []).append(document["id"])
    return {
        "queries": [{"id": id_, "text": text} for id_, text in judgements.judged.items()],
        "qrels": [
            {"query_id": query_id, "file_id": file_id, "relevance": max(0, gain)}
            for query_id in judgements.judged
            for item, gain in judgements.gains[query_id].items()
            for file_id in ids.get(item, [item])
        ],
    }
