"""The bodies of embedding requests: OpenAI's with Hearth's extensions, and those of TEI, Ollama and Cohere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from server.api.schemas.sampling import MAX_INT32
from server.api.schemas.wire import IGNORED, ModelName, WireModel, invalid, only
from server.services.embeddings import EmbeddingInputs, EmbeddingOptions
from server.services.quantisation import VectorType
from server.services.token_reader import TokenEncoding
from server.types import Lane, TokenIds, Truncate

MAX_DIMENSIONS = 65536

EXPECTED_INPUT = "expected a string, a list of strings, a list of token ids or a list of such lists"

_Input = str | list[str] | list[int] | list[list[int]]
CohereType = VectorType | Literal["base64"]

_TRUNCATIONS: dict[str, Truncate] = {"none": "error", "error": "error", "end": "end", "start": "start", "mean": "mean"}
_LANES: dict[str, Lane] = {"interactive": "interactive", "bulk": "bulk"}


def _parse_input(value: Any) -> EmbeddingInputs:
    is_single = isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int))
    items = [value] if is_single else value
    if not isinstance(items, list):
        raise invalid(EXPECTED_INPUT, code="invalid_type")
    if not items:
        raise invalid("expected at least one text")
    return _parse_token_lists(items) if isinstance(items[0], list) else _parse_texts(items)


def _parse_texts(items: list[Any]) -> list[str]:
    for index, text in enumerate(items):
        if not isinstance(text, str):
            raise invalid(f"expected strings, but item {index} is not", code="invalid_type")
        if not text:
            raise invalid(f"expected texts that are not empty, but item {index} is")
    return items


def _parse_token_lists(items: list[Any]) -> list[TokenIds]:
    for index, token_ids in enumerate(items):
        if not isinstance(token_ids, list) or not all(type(token_id) is int for token_id in token_ids):
            raise invalid(f"expected lists of token ids, but item {index} is not", code="invalid_type")
        if not token_ids:
            raise invalid(f"expected lists that are not empty, but item {index} is")
        if not 0 <= min(token_ids) <= max(token_ids) <= MAX_INT32:
            raise invalid(f"expected token ids from 0 to {MAX_INT32}, but item {index} has others")
    return items


def _parse_text_or_list(value: Any) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise invalid("expected a string or a list of strings", code="invalid_type")
    if not items:
        raise invalid("expected at least one text")
    return _parse_texts(items)


def parse_truncate(value: Any) -> Truncate:
    """OpenAI's clients send flags, Cohere's and NVIDIA's words in capitals."""
    if isinstance(value, bool):
        return "end" if value else "error"
    if isinstance(value, str) and value.lower() in _TRUNCATIONS:
        return _TRUNCATIONS[value.lower()]
    raise invalid('expected true, false, "error" (or "NONE"), "end", "start" or "mean"')


def parse_lane(value: Any) -> Lane:
    """As in vLLM and Cohere, larger numbers may wait longer; 0 is the usual."""
    if isinstance(value, str) and value in _LANES:
        return _LANES[value]
    if type(value) is int:
        return "bulk" if value > 0 else "interactive"
    raise invalid('expected "interactive", "bulk" or an integer, of which those above 0 mean bulk')


Dimensions = Annotated[int | None, Field(ge=1, le=MAX_DIMENSIONS)]
Inputs = Annotated[EmbeddingInputs, PlainValidator(_parse_input, json_schema_input_type=_Input)]
Texts = Annotated[list[str], PlainValidator(_parse_text_or_list, json_schema_input_type=str | list[str])]
TruncateField = Annotated[Truncate, PlainValidator(parse_truncate, json_schema_input_type=bool | str)]
LaneField = Annotated[Lane, PlainValidator(parse_lane, json_schema_input_type=Lane | int)]


class EmbeddingRequest(WireModel):
    """`POST /v1/embeddings`."""

    model: ModelName | None = None
    """id or alias of an embedding model; default: the first configured one"""
    input: Inputs
    """a string, up to `server.limits.max_inputs` strings, [token ids](#token-ids), or so many lists of them; none
    empty; required"""
    encoding_format: Literal["float", "base64"] = "float"
    """`float` (default) or `base64`: the bytes of the vector, little-endian, as the OpenAI SDK asks for"""
    dimensions: Dimensions = None
    """the model's own length, or a shorter one that models.yaml lists under `dimensions`: cut, and of length 1 again"""
    output_dtype: VectorType = "float"
    """extension, as in Voyage: `float` (default), `int8`, `uint8`, `binary` or `ubinary`; see [smaller
    vectors](#smaller-vectors)"""
    input_type: str | None = None
    """extension: what the input is for, in the words of Cohere, Voyage, NVIDIA or the model; takes the prompt that the
    model has for it; see [prompts](#prompts)"""
    prompt_name: str | None = None
    """extension, as in TEI: a prompt of the model by its exact name"""
    truncate: TruncateField = "error"
    """extension: what becomes of inputs that are too long; see [long inputs](#long-inputs)"""
    normalize: bool = True
    """extension: `false` leaves vectors as the model pools them; default `true`: length 1 (L2 norm)"""
    token_encoding: TokenEncoding | None = None
    """extension: `model`, `cl100k_base` or `o200k_base`; see [token ids](#token-ids)"""
    priority: LaneField = "interactive"
    """extension: `interactive` (default) or `bulk`; or an integer as in vLLM, of which those above 0 mean `bulk`. Bulk
    inputs wait while interactive ones do"""

    # Known, and without influence on the answer.
    user: Annotated[str, IGNORED] = ""
    """nothing is stored"""
    drop_params: Annotated[bool, IGNORED] = False
    """RAGFlow's word to a LiteLLM proxy, sent to all servers"""

    def options(self) -> EmbeddingOptions:
        return EmbeddingOptions(
            dimensions=self.dimensions,
            prompt_name=self.prompt_name,
            input_type=self.input_type,
            truncate=self.truncate,
            lane=self.priority,
            normalize=self.normalize,
            token_encoding=self.token_encoding,
        )


class TeiEmbedRequest(WireModel):
    """`POST /embed` of text-embeddings-inference. Token ids are the model's own there."""

    model: ModelName | None = None
    inputs: Inputs
    truncate: bool = False
    truncation_direction: Literal["right", "Right", "left", "Left"] = "right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: Dimensions = None

    def options(self) -> EmbeddingOptions:
        direction: Truncate = "end" if self.truncation_direction.lower() == "right" else "start"
        return EmbeddingOptions(
            dimensions=self.dimensions,
            prompt_name=self.prompt_name,
            truncate=direction if self.truncate else "error",
            normalize=self.normalize,
            token_encoding="model",  # noqa: S106 - no password
        )


class OllamaEmbedRequest(WireModel):
    """`POST /api/embed` of Ollama."""

    model: ModelName
    input: Texts
    truncate: bool = True
    dimensions: Dimensions = None

    # Known, and without influence on the answer: models are loaded by models.yaml, and encoders take no options.
    keep_alive: Annotated[str | int | float, IGNORED] = ""
    options: Annotated[dict[str, Any] | None, IGNORED] = None


class OllamaLegacyRequest(WireModel):
    """`POST /api/embeddings` of Ollama: one text, cut to what the model accepts."""

    model: ModelName
    prompt: Annotated[str, Field(min_length=1)]

    # As above.
    keep_alive: Annotated[str | int | float, IGNORED] = ""
    options: Annotated[dict[str, Any] | None, IGNORED] = None


class CohereEmbedRequest(WireModel):
    """`POST /v1/embed` and `/v2/embed` of Cohere."""

    model: ModelName | None = None
    texts: Texts
    input_type: str | None = None
    embedding_types: Annotated[list[CohereType] | None, Field(min_length=1, max_length=8)] = None
    output_dimension: Dimensions = None
    truncate: TruncateField = "end"
    priority: LaneField = "interactive"

    # Known, but not honoured.
    images: Annotated[Any, only([])] = None
    inputs: Annotated[Any, only()] = None
    max_tokens: Annotated[Any, only()] = None

    def options(self) -> EmbeddingOptions:
        return EmbeddingOptions(
            dimensions=self.output_dimension,
            input_type=self.input_type,
            truncate=self.truncate,
            lane=self.priority,
        )
