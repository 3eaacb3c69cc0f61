"""What people write first: sentence-transformers' `encode` (or `CrossEncoder.predict`) behind a Starlette route.

    python -m benchmarks.peers.plain_encode --kind embedding --weights FOLDER --port 9000

fp32 as loaded, requests one after the other: two calls at a time would fight for the same cores. The library batches
and sorts within a request, as it does for everybody. Answers have the fields of OpenAI and Cohere that the benchmark
reads, vectors in base64, so that all servers send as much.
"""

from __future__ import annotations

import argparse
import asyncio
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import torch
import uvicorn
from sentence_transformers import CrossEncoder, SentenceTransformer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.load import HOST

Body = dict[str, Any]
Answer = Callable[[Body], Body]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("embedding", "rerank"), required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.kind == "embedding":
        app = build_app("/v1/embeddings", embedding(SentenceTransformer(str(arguments.weights), device="cpu")))
    else:
        app = build_app("/v1/rerank", reranking(CrossEncoder(str(arguments.weights), device="cpu")))
    uvicorn.run(app, host=HOST, port=arguments.port, log_level="warning", access_log=False)


def build_app(path: str, answer: Answer) -> Starlette:
    """One route, whose answers are made on a thread of their own, one at a time."""
    thread = ThreadPoolExecutor(1)

    async def handle(request: Request) -> Response:
        body = orjson.loads(await request.body())
        content = await asyncio.get_running_loop().run_in_executor(thread, answer, body)
        return Response(orjson.dumps(content), media_type="application/json")

    async def health(_request: Request) -> Response:
        return Response()

    return Starlette(routes=[Route(path, handle, methods=["POST"]), Route("/health", health)])


def embedding(model: SentenceTransformer) -> Answer:
    def answer(body: Body) -> Body:
        vectors = model.encode(body["input"], normalize_embeddings=True, show_progress_bar=False)
        rows = [{"index": index, "embedding": b64encode(row).decode()} for index, row in enumerate(vectors)]
        return {"object": "list", "data": rows}

    return answer


def reranking(model: CrossEncoder) -> Answer:
    def answer(body: Body) -> Body:
        pairs = [(body["query"], document) for document in body["documents"]]
        scores = model.predict(pairs, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
        best_first = sorted(enumerate(scores.tolist()), key=lambda each: -each[1])
        return {"results": [{"index": index, "relevance_score": score} for index, score in best_first]}

    return answer


if __name__ == "__main__":
    main()
