"""What the real chat model does for retrieval: queries of questions, contexts of chunks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import openai
import pytest

from benchmarks.server_process import ServerProcess
from server.config.load import load_config
from server.storage.data_layout import DataLayout

pytestmark = pytest.mark.integration

BREAD = b"""# The baker's handbook

## Dough

Knead it for ten minutes, then let it rise in a warm place.

## Oven

Heat it to 230 degrees, and put a bowl of water in for steam.
"""


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0, timeout=120) as client:
        yield client


def test_a_question_is_searched_for_along_with_what_the_model_makes_of_it(sdk: openai.OpenAI) -> None:
    store = sdk.vector_stores.create(name="rewritten")
    sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("bread.md", BREAD))
    question = "Could you please tell me how hot the oven has to be?"

    found = sdk.vector_stores.search(store.id, query=question, rewrite_query=True)

    queries = (found.model_extra or {})["search_query"]

    assert queries[0] == question
    assert len(queries) <= 4
    assert len(set(queries)) == len(queries)
    assert "230 degrees" in found.data[0].content[0].text


def test_contexts_are_written_embedded_and_never_shown(sdk: openai.OpenAI, live_config: Path) -> None:
    strategy = {"type": "structural", "max_chunk_size_tokens": 32, "context": True}
    store = sdk.vector_stores.create(name="with context", chunking_strategy=strategy)  # type: ignore[arg-type]  # ours

    added = sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("bread.md", BREAD))

    assert added.status == "completed", added.last_error
    folder = load_config(live_config, environ={}, require_files=False).config.server.data_dir
    with closing(sqlite3.connect(f"{DataLayout(folder).database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        query = (
            "SELECT context FROM chunks WHERE context_key IS NOT NULL "
            "AND store_row = (SELECT row_id FROM vector_stores WHERE id = ?)"
        )
        contexts = [context for (context,) in db.execute(query, (store.id,))]

    assert len(contexts) >= 2
    assert any(contexts), "not one of them was of use"
    texts = [part.text for hit in sdk.vector_stores.search(store.id, query="oven") for part in hit.content]
    assert all(text in BREAD.decode() for text in texts)
