"""Embeddings: texts or token ids in; vectors out, in the length that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import InvalidRequest, RequestTooLarge
from server.models.registry import ModelRegistry
from server.protocols import EmbeddingModel
from server.services.model_facts import facts_of
from server.services.token_reader import TokenEncoding, TokenReader
from server.types import INPUT_TYPES, Lane, ModelFacts, Token, TokenIds, Truncate

EmbeddingInputs = list[str] | list[TokenIds]

MAX_TOKENIZED_CHARS = 4_000_000
"""Of one request: each token is some hundred bytes of answer. 2,048 texts of 400 tokens stay below."""

_KNOWN_INPUT_TYPES = {name for names in INPUT_TYPES.values() for name in names}


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """What a request may wish for.

    Attributes:
        dimensions: Length of the vectors; None: as the model yields them.
        prompt_name: A prompt of the model, put before each input.
        input_type: What the inputs are for, one of `INPUT_TYPES` or of its names: finds the prompt that the model has
            for it. A model without one gets the bare input, as its authors meant it.
        truncate, lane, normalize: See `EmbeddingModel.embed`.
        token_encoding: Whose token ids the inputs are; None: found out, see `token_reader`.
    """

    dimensions: int | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    truncate: Truncate = "error"
    lane: Lane = "interactive"
    normalize: bool = True
    token_encoding: TokenEncoding | None = None


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors in input order.

    Attributes:
        model_id: As configured, whatever alias was asked.
        vectors: float32 [num_inputs, dimensions], each row of L2 norm 1 unless that was not wanted.
        num_prompt_tokens, num_truncated, num_cached: See `EmbeddingResult`.
        token_encoding: How token ids were read; None: the inputs were texts.
    """

    model_id: str
    vectors: npt.NDArray[np.float32]
    num_prompt_tokens: int
    num_truncated: int
    num_cached: int
    token_encoding: TokenEncoding | None


class EmbeddingService:
    """Finds the model, keeps the limits, reads token ids, picks the prompt, embeds, cuts to length."""

    def __init__(self, registry: ModelRegistry, limits: Limits) -> None:
        self._registry = registry
        self._max_inputs = limits.max_inputs
        self._token_reader = TokenReader()

    async def embed(
        self, model: str | None, inputs: EmbeddingInputs, options: EmbeddingOptions | None = None
    ) -> Embeddings:
        """Embed inputs, keeping their order.

        Args:
            model: Id or alias; None takes the first configured embedding model.
            inputs: Texts or lists of token ids; neither the list nor its items are empty.

        Raises:
            ModelNotFound: No model of that name.
            RequestTooLarge: More inputs than `limits.max_inputs`.
            InvalidRequest: The model does not embed, or has no such length or prompt; or token ids are not readable.
            ContextLengthExceeded: An input is too long and `truncate` is "error".
        """
        options = options or EmbeddingOptions()
        config, embedder = self._registry.embedding(model)
        self._check_number(inputs)
        prompt = None
        if options.dimensions is not None or options.prompt_name or options.input_type:
            facts = await facts_of(embedder)
            _check_dimensions(config, facts, options.dimensions)
            prompt = _prompt(config.id, facts, options)
        readable, token_encoding = await self._read(embedder, inputs, options.token_encoding)
        result = await embedder.embed(
            readable, truncate=options.truncate, prompt=prompt, lane=options.lane, normalize=options.normalize
        )
        return Embeddings(
            model_id=config.id,
            vectors=_cut(result.vectors, options.dimensions, normalize=options.normalize),
            num_prompt_tokens=result.num_prompt_tokens,
            num_truncated=result.num_truncated,
            num_cached=result.num_cached,
            token_encoding=token_encoding,
        )

    async def tokenize(
        self, model: str | None, texts: list[str], *, add_special_tokens: bool = True
    ) -> list[list[Token]]:
        """Tell the tokens that a model makes of texts, in order, before any truncation and without a prompt.

        Raises:
            ModelNotFound: No model of that name.
            RequestTooLarge: More texts than `limits.max_inputs`, or more than `MAX_TOKENIZED_CHARS` in all.
            InvalidRequest: The model does not embed, or cannot tell its tokens.
            ContextLengthExceeded: A text is much longer than the model accepts.
        """
        _, embedder = self._registry.embedding(model)
        self._check_number(texts)
        num_chars = sum(map(len, texts))
        if num_chars > MAX_TOKENIZED_CHARS:
            raise RequestTooLarge(
                f"inputs has {num_chars} characters but at most {MAX_TOKENIZED_CHARS} are tokenised; send less at a "
                "time",
                param="inputs",
            )
        return await embedder.tokenize(texts, add_special_tokens=add_special_tokens)

    def _check_number(self, inputs: EmbeddingInputs) -> None:
        if len(inputs) > self._max_inputs:
            raise RequestTooLarge(
                f"input has {len(inputs)} texts but at most {self._max_inputs} are accepted; send several requests",
                param="input",
            )

    async def _read(
        self, embedder: EmbeddingModel, inputs: EmbeddingInputs, declared: TokenEncoding | None
    ) -> tuple[EmbeddingInputs, TokenEncoding | None]:
        """Return what the model can read, and how token ids were understood."""
        if isinstance(inputs[0], str):
            return inputs, None
        facts = await facts_of(embedder)
        return await self._token_reader.read(inputs, declared, facts.special_token_ids)


def _check_dimensions(config: ModelConfig, facts: ModelFacts, wanted: int | None) -> None:
    possible = sorted({length for length in config.dimensions if length < facts.dimensions} | {facts.dimensions})
    if wanted is not None and wanted not in possible:
        raise InvalidRequest(
            f"dimensions is {wanted} but model {config.id!r} yields {', '.join(map(str, possible))}; leave it out or "
            f"send {possible[-1]}",
            param="dimensions",
            code="unsupported_parameter",
        )


def _prompt(model_id: str, facts: ModelFacts, options: EmbeddingOptions) -> str | None:
    """The text to put before each input; None leaves it to the model's default."""
    if options.prompt_name and options.input_type:
        raise InvalidRequest("prompt_name and input_type both choose a prompt; send one of them", param="prompt_name")
    if options.prompt_name:
        return _named_prompt(model_id, facts, options.prompt_name)
    if options.input_type:
        return _prompt_for(facts, options.input_type)
    return None


def _named_prompt(model_id: str, facts: ModelFacts, name: str) -> str:
    if name not in facts.prompts:
        known = ", ".join(sorted(facts.prompts)) or "none"
        raise InvalidRequest(
            f"model {model_id!r} has no prompt {name[:80]!r}; its prompts: {known}", param="prompt_name"
        )
    return facts.prompts[name]


def _prompt_for(facts: ModelFacts, input_type: str) -> str:
    """The model's prompt for inputs of this type; a model without one needs none."""
    if input_type not in facts.prompts and input_type not in _KNOWN_INPUT_TYPES:
        known = ", ".join(sorted({*facts.prompts, *INPUT_TYPES}))
        raise InvalidRequest(f"input_type is {input_type[:80]!r}; expected one of {known}", param="input_type")
    return facts.prompt_for(input_type)


def _cut(vectors: npt.NDArray[np.float32], length: int | None, *, normalize: bool) -> npt.NDArray[np.float32]:
    """Shorten to the first components, and make the rest of norm 1 again."""
    if length is None or length == vectors.shape[1]:
        return vectors
    vectors = vectors[:, :length]
    if not normalize:
        return vectors
    norms: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = vectors / norms.clip(min=np.finfo(np.float32).tiny)
    return unit
