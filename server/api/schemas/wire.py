"""The base of all request schemas, and what they share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

ModelName = Annotated[str, Field(min_length=1, max_length=16_384)]
"""Far longer than any name, so that a wrong one is still a model that was not found."""

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def _read_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


TextInteger = Annotated[int, BeforeValidator(_read_integer)]
"""An integer in a query string or a form, where all values are texts."""


def _read_flag(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


TextFlag = Annotated[bool, BeforeValidator(_read_flag)]
"""A boolean in a query string."""

MAX_FIELDS = 256
"""Fields of one object. Each unknown one costs an error of its own, so a flood of them is refused at once."""


class WireModel(BaseModel):
    """A JSON object from a client: no unknown fields, no conversions between types, `null` means default.

    What stands as a docstring below a field is its description, in /openapi.json and in docs/api.md.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            raise PydanticCustomError("too_many_fields", "no object of this API has so many fields")
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data


@dataclass(frozen=True, eq=False)  # else `only(0)` and `only(False)` would be the same annotation to Python
class Only:
    """Marks a parameter that clients know and this server does not honour (yet): what changes nothing is accepted.

    Attributes:
        allowed: The values that change nothing; none where there are none.
    """

    allowed: tuple[object, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.allowed)} if self.allowed else {"type": "null"}

    def _check(self, value: object) -> object:
        # 1, 1.0 and True are equal to Python, not to a client.
        if any(type(value) is type(one) and value == one for one in self.allowed):
            return value
        raise PydanticCustomError(
            "unsupported_parameter",
            "{accepted}",
            {
                "accepted": f"this server supports only {_either(self.allowed)}"
                if self.allowed
                else "this server does not support it"
            },
        )


def only(*allowed: object) -> Only:
    return Only(allowed)


@dataclass(frozen=True)
class Ignored:
    """Marks a parameter that cannot change the answer; it is checked all the same."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "x-ignored": True}


IGNORED = Ignored()


def invalid(expectation: str, *, code: str = "invalid_value") -> PydanticCustomError:
    """The error that a hand-written check raises; `expectation` follows `<param> is <value>; `."""
    return PydanticCustomError(code, "{expectation}", {"expectation": expectation})


def _either(values: tuple[object, ...]) -> str:
    return " or ".join(orjson.dumps(value).decode() for value in values)
