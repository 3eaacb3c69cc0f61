"""What the server answers against the same weights run directly by the libraries that they were made for."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from tests.integration.live_models import CHAT, EMBEDDING, REPOSITORY, RERANK, ask

pytestmark = pytest.mark.integration

PHRASES = (
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France?",
    "Zürich, São Paulo und Kraków im Frühling",
    "今天天气很好，我们去公园散步吧。",
    "Москва — столица России",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "def add(a: int, b: int) -> int:\n    return a + b",
    "SELECT * FROM users WHERE id = 42;",
    "🎉🚀 emoji 👩‍👩‍👧‍👦 and 🏳️‍🌈",
    "e\u0301 and é are the same",
    "ＦＵＬＬ width ﬁ ligature",
    "https://example.org/a?b=c&d=%20e",
    "3.14159 -42 1e10 0x1F",
    "\u200bzero\u200bwidth\ufeff",
    "  spaces   and\ttabs\n\nand lines  ",
    "[SEP] [CLS] [MASK]",
    "supercalifragilisticexpialidocious " * 3,
)


def _texts(count: int) -> list[str]:
    """Texts of one phrase to some dozens of tokens, in many scripts; always the same."""
    rng = random.Random(7)
    return [*PHRASES, *(" ".join(rng.choices(PHRASES, k=rng.randint(1, 5))) for _ in range(count - len(PHRASES)))]


LLAMA_CPP = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=512, n_threads=2, verbose=False)
for question in json.load(sys.stdin):
    messages = [{"role": "user", "content": question}]
    answer = model.create_chat_completion(messages, temperature=0, max_tokens=3)
    print(json.dumps([answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]]))
"""


def test_greedy_chats_are_those_of_llama_cpp(http: httpx.Client) -> None:
    """Three tokens, each ahead of the next best by 0.7 or more: the template and the tokens must be the same for them.

    Further on come ties of 0.05, which the size of a batch decides (benchmarks/batch_invariance.py).
    """
    questions = ["Write one sentence about cats.", "What is gravity? Answer in one sentence.", "Zürich — 今天 🎉?"]
    (weights,) = (REPOSITORY / "weights" / CHAT).glob("*.gguf")

    bodies = [ask(question, CHAT, temperature=0, max_tokens=3) for question in questions]
    ours = [http.post("/v1/chat/completions", json=body).json() for body in bodies]

    command = [sys.executable, "-c", LLAMA_CPP, str(weights)]
    theirs = subprocess.run(command, input=json.dumps(questions), stdout=subprocess.PIPE, text=True, check=True).stdout
    assert [[answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]] for answer in ours] == [
        json.loads(line) for line in theirs.splitlines()
    ]


def test_embeddings_are_those_of_sentence_transformers(http: httpx.Client) -> None:
    from sentence_transformers import SentenceTransformer

    texts = _texts(100)
    reference = SentenceTransformer(str(REPOSITORY / "weights" / EMBEDDING / "model"), device="cpu")

    answer = http.post("/v1/embeddings", json={"model": EMBEDDING, "input": texts, "truncate": True}).json()

    ours = np.array([item["embedding"] for item in answer["data"]])
    theirs = reference.encode(texts, normalize_embeddings=True)
    assert np.abs(1 - (ours * theirs).sum(axis=1)).max() <= 1e-5


@pytest.mark.parametrize("query", ["capital of France", "how to add two numbers in python", "天气"])
def test_rerank_scores_are_those_of_the_onnx_model_run_pair_by_pair(http: httpx.Client, query: str) -> None:
    documents = list(dict.fromkeys(_texts(40)))

    answer = http.post("/v1/rerank", json={"model": RERANK, "query": query, "documents": documents}).json()

    expected = _onnx_scores(query, documents)
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert list(scores) == np.argsort(-expected, kind="stable").tolist()
    assert np.allclose([scores[index] for index in range(len(documents))], expected, atol=1e-6, rtol=1e-5)


def _onnx_scores(query: str, documents: list[str]) -> npt.NDArray[np.float64]:
    """One pair per run: dynamic int8 quantisation takes its scale from the whole batch."""
    import onnxruntime
    from tokenizers import Tokenizer

    folder = REPOSITORY / "weights" / RERANK / "reranker_en"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    logits = []
    for document in documents:
        encoding = tokenizer.encode(query, document)
        fields = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        wanted = {each.name: np.array([fields[each.name]], dtype=np.int64) for each in session.get_inputs()}
        logits.append(session.run(None, wanted)[0].item())
    scores: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.array(logits)))
    return scores
