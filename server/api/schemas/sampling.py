"""Sampling parameters, as chat and completions share them. Ranges are checked here and nowhere below."""

from __future__ import annotations

import re
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field

from server.api.schemas.wire import WireModel, invalid
from server.services.generation import SamplingOptions
from server.types import Urgency

MAX_LOGIT_BIASES = 1024
MAX_STOPS = 4
MAX_STOP_BYTES = 512
MAX_INT32 = 2**31 - 1
MAX_PRIORITY = 1000
MAX_TIMEOUT_S = 86_400
MAX_CHOICES = 16
MAX_TOP_LOGPROBS = 20

_Stops = str | Annotated[list[str], Field(max_length=MAX_STOPS)]
_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")


def _parse_logit_bias(value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise invalid("expected an object of token id to bias", code="invalid_type")
    if len(value) > MAX_LOGIT_BIASES:
        raise invalid(f"expected at most {MAX_LOGIT_BIASES} token ids, not {len(value)}")
    return {_parse_token_id(token_id): _parse_bias(bias) for token_id, bias in value.items()}


def _parse_token_id(text: str) -> int:
    if not _TOKEN_ID.fullmatch(text) or int(text) > MAX_INT32:
        raise invalid(f"key {text[:40]!r} is not a token id")
    return int(text)


def _parse_bias(bias: Any) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
        raise invalid("expected biases from -100 to 100")
    return float(bias)


def _parse_stop(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str | list):
        raise invalid("expected a string or a list of strings", code="invalid_type")
    return check_stops([value] if isinstance(value, str) else value)


def check_stops(stops: Any) -> tuple[str, ...]:
    if not isinstance(stops, list):
        raise invalid("expected a list of strings", code="invalid_type")
    if len(stops) > MAX_STOPS:
        raise invalid(f"expected at most {MAX_STOPS} strings, not {len(stops)}")
    if not all(isinstance(stop, str) for stop in stops):
        raise invalid("expected a string or a list of strings", code="invalid_type")
    if not all(1 <= len(stop.encode()) <= MAX_STOP_BYTES for stop in stops):
        raise invalid(f"expected strings of 1 to {MAX_STOP_BYTES} bytes")
    return tuple(stops)


class StreamOptions(WireModel):
    include_usage: bool = False
    """a last chunk with `usage` and `"choices": []`"""
    include_obfuscation: bool = False
    """changes nothing"""


class SamplingFields(WireModel):
    """None means: not named by the request."""

    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_INT32)] = None
    """1 or more; default: the model's, else until the context is full"""
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    """0 to 2; 0 is greedy; default: the model's"""
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    """0 to 1; default: the model's"""
    top_k: Annotated[int | None, Field(ge=0, le=MAX_INT32)] = None
    """0 or more; 0 is off"""
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    """0 to 1; 0 is off"""
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    """-2 to 2"""
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    """-2 to 2"""
    repeat_penalty: Annotated[float | None, Field(ge=0.1, le=2)] = None
    """0.1 to 2; 1 is off"""
    logit_bias: Annotated[
        dict[int, float] | None, BeforeValidator(_parse_logit_bias, json_schema_input_type=dict[str, float])
    ] = None
    """token id to -100..100; at most 1024"""
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    """any 64-bit integer; same seed and request, same answer"""
    stop: Annotated[tuple[str, ...] | None, BeforeValidator(_parse_stop, json_schema_input_type=_Stops)] = None
    """a string or up to 4, each of 1 to 512 bytes"""
    ignore_eos: bool | None = None
    """extension: go on until `max_tokens`, for benchmarks"""
    priority: Annotated[int, Field(ge=0, le=MAX_PRIORITY)] = 0  # clients may only step back
    """extension, as in vLLM: lower runs first; 0 to 1000, so a request can only step back behind others; default 0"""
    timeout_s: Annotated[float | None, Field(gt=0, le=MAX_TIMEOUT_S)] = None
    """extension: seconds, up to 86400, after which the request fails with `deadline_exceeded`, wherever it stands;
    default: none"""
    stream: bool = False
    """see [streams](#streams)"""
    stream_options: StreamOptions = StreamOptions()
    """`include_usage`; `include_obfuscation` is ignored"""

    @property
    def num_logprobs(self) -> int | None:
        """See `SamplingParams`."""
        return None

    def sampling(self) -> SamplingOptions:
        """What the request names itself."""
        named = {name: getattr(self, name) for name in SamplingOptions.__annotations__}
        return cast(SamplingOptions, {name: value for name, value in named.items() if value is not None})

    def urgency(self) -> Urgency:
        return Urgency(priority=self.priority, timeout_s=self.timeout_s)
