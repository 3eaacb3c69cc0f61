from __future__ import annotations

from base64 import b64encode
from itertools import islice

import numpy as np
import orjson

from benchmarks.encoder_asks import answer_of, bulk_lists, mixed_lists, rerank_lists
from benchmarks.prompts import Prompts
from server.loadgen.exchange import Reply


def test_lists_have_texts_of_8_to_200_words() -> None:
    asks = list(islice(mixed_lists(8)(Prompts(1)), 50))
    lengths = [len(text.split()) for ask in asks for text in ask.body["input"]]

    assert {ask.num_items for ask in asks} == {8}
    assert 8 <= min(lengths) < 20 and 190 < max(lengths) <= 200


def test_no_text_comes_twice_and_the_same_seed_gives_the_same_texts() -> None:
    texts = [[text for ask in islice(bulk_lists(Prompts(seed)), 4) for text in ask.body["input"]] for seed in (1, 1, 2)]

    assert texts[0] == texts[1]
    assert len({*texts[0], *texts[2]}) == len(texts[0]) + len(texts[2])


def test_a_rerank_has_32_documents_of_64_words() -> None:
    ask = next(rerank_lists(Prompts(1)))

    assert [len(document.split()) for document in ask.body["documents"]] == [64] * 32 and ask.num_items == 32


def test_answers_are_in_the_order_of_the_inputs() -> None:
    vectors = [b64encode(np.array([number, 0.5], "<f4")).decode() for number in (1, 0)]
    embedded = {"data": [{"index": 1, "embedding": vectors[0]}, {"index": 0, "embedding": vectors[1]}]}
    ranked = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.25}]}

    assert answer_of(Reply(2, 0.0, content=orjson.dumps(embedded))) == [[0.0, 0.5], [1.0, 0.5]]
    assert answer_of(Reply(2, 0.0, content=orjson.dumps(ranked))) == [[0.25], [0.9]]
