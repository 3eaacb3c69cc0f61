"""What the sections of models.yaml share: they are frozen, know all their keys, and say which key is at fault."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
ModelAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=128)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def error_at(location: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """Build the error of a check over several keys; `location` leads from the checked section to the key at fault."""
    return PydanticCustomError("combination", "{message}", {"message": message, "location": location})
