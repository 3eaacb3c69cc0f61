"""The process of one embedding or rerank model: `python -m server.workers.encoder_worker`."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from server.config.schema import ModelConfig
from server.encoders.batcher import Batcher, EncodeOutcome
from server.encoders.encoded import Encoded, unit_rows
from server.encoders.encoder import Pairs, Speller, Texts
from server.encoders.fingerprint import model_fingerprint
from server.encoders.loading import load_encoder
from server.encoders.vector_cache import VectorCache
from server.encoders.vector_file import VectorFile, fingerprint_of
from server.errors import HearthError, InternalError, InvalidRequest
from server.types import Failed, ModelFacts
from server.workers.child import Send, run_child
from server.workers.messages import (
    Abort,
    BulkShare,
    Embed,
    Embedded,
    Heartbeat,
    RequestFailed,
    Rerank,
    Reranked,
    Tokenize,
    Tokenized,
    ToWorker,
    WorkerSpec,
)
from server.workers.tuning_cache import open_kernel_cache

logger = logging.getLogger(__name__)


class EncoderWorker:
    """Joins an encoder, its batcher and the channel."""

    def __init__(self, config: ModelConfig, spec: WorkerSpec, send: Send) -> None:
        assert spec.weights_path is not None
        weights_path = Path(spec.weights_path)
        encoder = load_encoder(
            config,
            weights_path,
            num_threads=spec.num_threads,
            portable_kernels=spec.portable_kernels,
            memory=open_kernel_cache(config, spec) if config.backend == "sentence_transformers" else None,
        )
        fingerprint = model_fingerprint(weights_path, encoder.facts)
        self.facts = msgspec.structs.replace(encoder.facts, fingerprint=fingerprint)
        self._encoder = encoder
        self._speller = ThreadPoolExecutor(1, thread_name_prefix="encoder-speller")
        self._to_spell: set[str] = set()  # from their arrival until they are answered or aborted
        self._num_spelled = 0
        self._batcher = Batcher(encoder, cache=_open_cache(config, weights_path, encoder.facts))
        self._send = send
        self._stopped = threading.Event()

    def run(self) -> None:
        self._stopped.wait()
        self._speller.shutdown(wait=True, cancel_futures=True)
        self._batcher.close()

    def stop(self) -> None:
        self._stopped.set()

    def handle(self, message: ToWorker) -> None:
        if isinstance(message, Embed):
            texts = Texts(message.inputs, message.truncate, message.prompt)
            on_done = partial(self._answer, message)
            self._batcher.submit(
                message.request_id,
                texts,
                lane=message.lane,
                tenant=message.tenant,
                weight=message.weight,
                on_done=on_done,
            )
        elif isinstance(message, Rerank):
            pairs = Pairs(message.query, message.documents, message.truncate, message.max_tokens_per_doc)
            on_done = partial(self._answer, message)
            self._batcher.submit(
                message.request_id,
                pairs,
                lane=message.lane,
                timeout_s=message.timeout_s,
                tenant=message.tenant,
                weight=message.weight,
                on_done=on_done,
            )
        elif isinstance(message, Tokenize):
            self._to_spell.add(message.request_id)
            self._speller.submit(self._spell, message)
        elif isinstance(message, Abort):
            self._to_spell.discard(message.request_id)
            self._batcher.cancel(message.request_id)
        elif isinstance(message, BulkShare):
            self._batcher.set_bulk_share(message.share)

    def heartbeat(self) -> Heartbeat:
        progress = self._batcher.progress()
        return Heartbeat(
            num_steps=progress.num_steps + self._num_spelled,
            busy_s=progress.busy_s,
            num_running=progress.num_running,
            num_waiting=progress.num_waiting + len(self._to_spell),
            s_per_token=self._batcher.s_per_token,
            encoded=self._batcher.counts(),
        )

    # ---- the speller's thread

    def _spell(self, asked: Tokenize) -> None:
        if asked.request_id not in self._to_spell:
            return
        try:
            if not isinstance(self._encoder, Speller):
                raise InvalidRequest("this model cannot tell its tokens", param="model", code="unsupported_value")
            tokens = self._encoder.spell(asked.texts, add_special_tokens=asked.add_special_tokens)
        except HearthError as exc:
            self._refuse(asked.request_id, exc)
        except Exception:
            logger.exception("texts could not be tokenised", extra={"request_id": asked.request_id})
            error = InternalError("the texts could not be tokenised; the server's log has the details")
            self._refuse(asked.request_id, error)
        else:
            self._send(Tokenized(asked.request_id, tokens))
        finally:
            self._to_spell.discard(asked.request_id)
            self._num_spelled += 1

    # ---- the batcher's threads

    def _answer(self, asked: Embed | Rerank, outcome: EncodeOutcome) -> None:
        if not isinstance(outcome, Encoded):
            self._refuse(asked.request_id, outcome)
            return
        try:
            self._send(_embedded(asked, outcome) if isinstance(asked, Embed) else _reranked(asked, outcome))
        except Exception:  # no memory for it, say: whoever waits must hear of it
            logger.exception("an answer could not be built", extra={"request_id": asked.request_id})
            error = InternalError("the answer could not be built; the server's log has the details")
            self._refuse(asked.request_id, error)

    def _refuse(self, request_id: str, error: HearthError) -> None:
        self._send(RequestFailed(request_id, Failed(error.code, error.message, error.param)))


def _embedded(asked: Embed, outcome: Encoded) -> Embedded:
    rows = unit_rows(outcome.rows) if asked.normalize else outcome.rows
    vectors = rows.astype("<f4", copy=False).tobytes()
    counts = (outcome.num_prompt_tokens, outcome.num_truncated, outcome.num_cached)
    return Embedded(asked.request_id, vectors, rows.shape[1], *counts)


def _reranked(asked: Rerank, outcome: Encoded) -> Reranked:
    scores = outcome.rows.astype("<f4", copy=False).tobytes()
    return Reranked(
        asked.request_id,
        scores,
        outcome.num_prompt_tokens,
        outcome.num_truncated,
        outcome.num_cached,
        outcome.num_cached_tokens,
    )


def _open_cache(config: ModelConfig, weights_path: Path, facts: ModelFacts) -> VectorCache:
    if config.cache_file is None:
        return VectorCache(config.cache_mb << 20)
    row_shape = (facts.dimensions,) if config.kind == "embedding" else ()
    file = VectorFile(config.cache_file, fingerprint_of(weights_path, facts), row_shape=row_shape)
    return VectorCache(config.cache_mb << 20, file)


if __name__ == "__main__":
    run_child(EncoderWorker)
