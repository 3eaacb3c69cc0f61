"""Sampling parameters are written down three times, each for a reader of its own; here they must agree."""

from __future__ import annotations

from server.api.schemas.sampling import SamplingFields
from server.config.schema import SamplingDefaults
from server.services.generation import SamplingOptions
from server.types import SamplingParams, Urgency


def test_requests_services_and_workers_name_the_same_parameters() -> None:
    names = list(SamplingParams.__struct_fields__)

    assert list(SamplingOptions.__annotations__) == names
    others = ("stream", "stream_options", *Urgency.__struct_fields__)
    fields = [name for name in SamplingFields.model_fields if name not in others]
    assert [*fields, "num_logprobs"] == names  # which chat and completions have under names of their own


def test_defaults_name_known_parameters() -> None:
    assert set(SamplingDefaults.model_fields) <= set(SamplingParams.__struct_fields__)
