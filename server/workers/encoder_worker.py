"""The process of one embedding or rerank model: `python -m server.workers.encoder_worker`."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from server.config.schema import ModelConfig
from server.encoders.batcher import Batcher, Encoded, EncodeOutcome
from server.encoders.loading import load_encoder
from server.errors import HearthError
from server.types import Failed
from server.workers.child import Send, run_child
from server.workers.messages import (
    Abort,
    Embed,
    Embedded,
    Heartbeat,
    RequestFailed,
    Rerank,
    Reranked,
    ToWorker,
    WorkerSpec,
)


class EncoderWorker:
    """Joins an encoder, its batcher and the channel."""

    def __init__(self, config: ModelConfig, spec: WorkerSpec, send: Send) -> None:
        assert spec.weights_path is not None
        encoder = load_encoder(config, Path(spec.weights_path), num_threads=spec.num_threads)
        self.facts = encoder.facts
        self._batcher = Batcher(encoder)
        self._send = send
        self._stopped = threading.Event()

    def run(self) -> None:
        self._stopped.wait()
        self._batcher.close()

    def stop(self) -> None:
        self._stopped.set()

    def handle(self, message: ToWorker) -> None:
        if isinstance(message, Embed):
            on_done = partial(self._answer_embed, message.request_id)
            self._batcher.submit(message.request_id, message.texts, truncate=message.truncate, on_done=on_done)
        elif isinstance(message, Rerank):
            pairs = [(message.query, document) for document in message.documents]
            on_done = partial(self._answer_rerank, message.request_id)
            self._batcher.submit(message.request_id, pairs, truncate=message.truncate, on_done=on_done)
        elif isinstance(message, Abort):
            self._batcher.cancel(message.request_id)

    def heartbeat(self) -> Heartbeat:
        progress = self._batcher.progress()
        return Heartbeat(
            num_steps=progress.num_steps,
            busy_s=progress.busy_s,
            num_running=progress.num_running,
            num_waiting=progress.num_waiting,
        )

    # ---- the batcher's threads

    def _answer_embed(self, request_id: str, outcome: EncodeOutcome) -> None:
        if not isinstance(outcome, Encoded):
            self._refuse(request_id, outcome)
            return
        self._send(
            Embedded(
                request_id,
                outcome.rows.astype("<f4").tobytes(),
                outcome.rows.shape[1],
                outcome.num_prompt_tokens,
                outcome.num_truncated,
            )
        )

    def _answer_rerank(self, request_id: str, outcome: EncodeOutcome) -> None:
        if not isinstance(outcome, Encoded):
            self._refuse(request_id, outcome)
            return
        scores = outcome.rows.astype("<f4").tobytes()
        self._send(Reranked(request_id, scores, outcome.num_prompt_tokens, outcome.num_truncated))

    def _refuse(self, request_id: str, error: HearthError) -> None:
        self._send(RequestFailed(request_id, Failed(error.code, error.message, error.param)))


if __name__ == "__main__":
    run_child(EncoderWorker)
