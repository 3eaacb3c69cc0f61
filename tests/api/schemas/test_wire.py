"""What all request schemas share."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from server.api.schemas.wire import IGNORED, WireModel, only


class Wishes(WireModel):
    count: Annotated[Any, only(0)] = 0
    flag: Annotated[Any, only(False)] = False
    never: Annotated[Any, only()] = None
    user: Annotated[str, IGNORED] = ""
    """nothing is stored"""


@pytest.mark.parametrize(
    ("body", "is_accepted"),
    [
        ({"count": 0, "flag": False, "never": None, "user": "ada"}, True),
        ({"count": False}, False),
        ({"flag": 0}, False),
        ({"never": 0}, False),
        ({"user": 1}, False),
    ],
)
def test_only_what_changes_nothing_is_accepted(body: dict[str, Any], is_accepted: bool) -> None:
    """0 and False are equal to Python, not to a client."""
    if is_accepted:
        Wishes.model_validate(body)
        return
    with pytest.raises(ValidationError):
        Wishes.model_validate(body)


def test_what_is_not_honoured_is_described_so() -> None:
    fields = Wishes.model_json_schema()["properties"]

    assert (fields["count"]["enum"], fields["flag"]["enum"], fields["never"]["type"]) == ([0], [False], "null")
    assert (fields["user"]["x-ignored"], fields["user"]["description"]) == (True, "nothing is stored")
