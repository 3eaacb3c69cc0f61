"""Every message that crosses between the API process and a worker, and the codec for them.

One duplex channel per worker. Parent to worker: `ToWorker`; worker to parent: `FromWorker`. All are msgspec structs in
msgpack; vectors travel as little-endian float32 bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from server.types import (
    DEFAULT_TENANT,
    ChatPrompt,
    Delta,
    EncoderCounts,
    EngineCounts,
    Failed,
    Finished,
    GenerateRequest,
    Lane,
    ModelFacts,
    Prompt,
    RenderedPrompt,
    Started,
    Token,
    TokenIds,
    Truncate,
)

LOAD_FAILED_EXIT_CODE = 3
"""A worker ends with this after it has sent `LoadError`."""

CRASHED_EXIT_CODE = 1
"""A worker ends with this after an exception that it did not expect; its log has the traceback."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All a worker needs to start; handed over on its standard input as one JSON line.

    Attributes:
        model_json: The `ModelConfig`, as JSON.
        weights_path: File or folder with the weights; None for models that have none.
        endpoint: ZeroMQ address (ipc://) that the parent listens on.
        num_threads: Compute threads that the worker may use.
        tuning_dir: Folder of what was measured to be fast; None: nothing is measured.
        portable_kernels: Avoid CPU-specific kernels: set after a worker died of an illegal instruction.
        log_level, log_format: How the worker logs to its stderr, which the parent passes on.
    """

    model_json: str
    weights_path: str | None
    endpoint: str
    num_threads: int
    tuning_dir: str | None = None
    portable_kernels: bool = False
    log_level: str = "info"
    log_format: Literal["text", "json"] = "json"


# ---- parent to worker


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    request: GenerateRequest


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Embed inputs; see `EmbeddingModel.embed` for the meaning of the fields, and `Asker` for that of the last two."""

    request_id: str
    inputs: list[str | TokenIds]
    truncate: Truncate = "error"
    prompt: str | None = None
    lane: Lane = "interactive"
    normalize: bool = True
    tenant: str = DEFAULT_TENANT
    weight: float = 1.0


class Rerank(msgspec.Struct, frozen=True, tag="rerank"):
    """Score documents; see `RerankModel.rerank` for the meaning of the fields, and `Asker` for that of the last two."""

    request_id: str
    query: str
    documents: list[str]
    truncate: Truncate = "error"
    lane: Lane = "interactive"
    max_tokens_per_doc: int | None = None
    timeout_s: float | None = None
    tenant: str = DEFAULT_TENANT
    weight: float = 1.0


class Tokenize(msgspec.Struct, frozen=True, tag="tokenize"):
    """Tell the tokens of texts; see `EmbeddingModel.tokenize` for the meaning of the fields."""

    request_id: str
    texts: list[str]
    add_special_tokens: bool = True


class TellTokenIds(msgspec.Struct, frozen=True, tag="tell_token_ids"):
    """Tell the token ids of texts and prompts; see `ChatModel.token_ids`."""

    request_id: str
    inputs: list[str | Prompt]


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Tell what a conversation is to the model; see `ChatModel.render`."""

    request_id: str
    prompt: ChatPrompt


class TellPieces(msgspec.Struct, frozen=True, tag="tell_pieces"):
    """Tell the bytes of tokens; see `ChatModel.token_pieces`."""

    request_id: str
    token_ids: TokenIds


Question = TellTokenIds | Render | TellPieces
"""What a chat model answers without generating."""


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Nobody waits for this request any more. Unknown ids are ignored: it may have ended meanwhile."""

    request_id: str


class BulkShare(msgspec.Struct, frozen=True, tag="bulk_share"):
    """From now on an encoder's bulk batches may compute in this part of the time, 0 < share <= 1; at first it is 1."""

    share: float


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Stop now and exit with 0. The parent has ended or failed all requests before."""


ToWorker = Generate | Embed | Rerank | Tokenize | Question | Abort | BulkShare | Shutdown


# ---- worker to parent


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The model is loaded; first message of a healthy worker besides heartbeats."""

    facts: ModelFacts


class WeightsRead(msgspec.Struct, frozen=True, tag="weights_read"):
    """How much of the weights has been read, 0..1. Comes while the model loads, where the runtime tells."""

    fraction: float


class LoadError(msgspec.Struct, frozen=True, tag="load_error"):
    """The model cannot be loaded, and trying again will not help; the worker exits after this."""

    message: str


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Sign of life with progress: a thread that answers is no proof that the compute loop returns.

    Attributes:
        num_steps: Pieces of work finished since start: requests prepared, engine steps or encoder batches.
        busy_s: How long the engine step or encoder batch now running has taken, or an encoder's has shown no progress;
            0 when idle.
        num_running, num_waiting: Work in hand, of whatever size. While there is some, `num_steps` must grow.
        s_per_token: What a token of a prompt, or of an encoder's input, costs; 0 while that is not known.
        s_per_answer_token: What a generated token costs, where as many generations run as may; 0 of encoders.
        encoded: What an encoder has computed so far; None of other models.
        generated: What an engine has; None of other models.
    """

    num_steps: int
    busy_s: float
    num_running: int = 0
    num_waiting: int = 0
    s_per_token: float = 0.0
    s_per_answer_token: float = 0.0
    encoded: EncoderCounts | None = None
    generated: EngineCounts | None = None


class StreamOutput(msgspec.Struct, frozen=True):
    """One event of one generation, inside a `StepOutput`."""

    request_id: str
    event: Started | Delta | Finished | Failed


class StepOutput(msgspec.Struct, frozen=True, tag="step"):
    """All that an engine step has to say, or several quick ones: see `output_queue.py`."""

    outputs: list[StreamOutput]


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """These generations are about to be computed: whatever becomes of the worker, they have been part of it."""

    request_ids: list[str]


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """Answer to `Embed`: float32 [num_inputs, dimensions]."""

    request_id: str
    vectors: bytes
    dimensions: int
    num_prompt_tokens: int
    num_truncated: int = 0
    num_cached: int = 0


class Reranked(msgspec.Struct, frozen=True, tag="reranked"):
    """Answer to `Rerank`: float32 [num_documents], raw logits; NaN where the time did not suffice."""

    request_id: str
    scores: bytes
    num_prompt_tokens: int
    num_truncated: int = 0
    num_cached: int = 0
    num_cached_tokens: int = 0


class Tokenized(msgspec.Struct, frozen=True, tag="tokenized"):
    """Answer to `Tokenize`: the tokens of each text."""

    request_id: str
    tokens: list[list[Token]]


class TokenIdsTold(msgspec.Struct, frozen=True, tag="token_ids_told"):
    """Answer to `TellTokenIds`: the ids of each input."""

    request_id: str
    token_ids: list[TokenIds]


class Rendered(msgspec.Struct, frozen=True, tag="rendered"):
    """Answer to `Render`."""

    request_id: str
    prompt: RenderedPrompt


class PiecesTold(msgspec.Struct, frozen=True, tag="pieces_told"):
    """Answer to `TellPieces`: the bytes of each token."""

    request_id: str
    pieces: list[bytes]


Reply = TokenIdsTold | Rendered | PiecesTold
"""To a `Question`."""


class RequestFailed(msgspec.Struct, frozen=True, tag="request_failed"):
    """Answer to `Embed`, `Rerank`, `Tokenize` or a `Question` that cannot be given."""

    request_id: str
    error: Failed


FromWorker = (
    Ready
    | WeightsRead
    | LoadError
    | Heartbeat
    | StepOutput
    | Begun
    | Embedded
    | Reranked
    | Tokenized
    | Reply
    | RequestFailed
)

encoder = msgspec.msgpack.Encoder()
to_worker_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
