"""The base of all request schemas, and what they share."""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

ModelName = Annotated[str, Field(min_length=1, max_length=16_384)]
"""Far longer than any name, so that a wrong one is still a model that was not found."""

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def _read_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


TextInteger = Annotated[int, BeforeValidator(_read_integer)]
"""An integer in a query string or a form, where all values are texts."""

MAX_FIELDS = 256
"""Fields of one object. Each unknown one costs an error of its own, so a flood of them is refused at once."""


class WireModel(BaseModel):
    """A JSON object from a client: no unknown fields, no conversions between types, `null` means default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            raise PydanticCustomError("too_many_fields", "no object of this API has so many fields")
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data


def only(*allowed: object) -> AfterValidator:
    """For parameters that clients know and this server does not honour yet: accept just what changes nothing."""

    def check(value: object) -> object:
        # 1, 1.0 and True are equal to Python, not to a client.
        if any(type(value) is type(one) and value == one for one in allowed):
            return value
        raise PydanticCustomError(
            "unsupported_parameter",
            "{accepted}",
            {
                "accepted": f"this server supports only {_either(allowed)}"
                if allowed
                else "this server does not support it"
            },
        )

    return AfterValidator(check)


def invalid(expectation: str, *, code: str = "invalid_value") -> PydanticCustomError:
    """The error that a hand-written check raises; `expectation` follows `<param> is <value>; `."""
    return PydanticCustomError(code, "{expectation}", {"expectation": expectation})


def _either(values: tuple[object, ...]) -> str:
    return " or ".join(orjson.dumps(value).decode() for value in values)
