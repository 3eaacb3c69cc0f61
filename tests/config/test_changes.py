"""What is different in another models.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from server.config.changes import changes_between
from server.config.schema import Display, HearthConfig, ModelConfig, Prices, SamplingDefaults
from server.config.script_section import ScriptRule


def model(model_id: str = "m", **values: Any) -> ModelConfig:
    return ModelConfig(id=model_id, kind="chat", backend="llama_cpp", source="file:m.gguf", **values)


def compare(old: ModelConfig, new: ModelConfig) -> str:
    before, after = HearthConfig(models=(old,)), HearthConfig(models=(new,))
    found = changes_between(before, after, {old.id: old})
    [kind] = [kind for kind in ("added", "changed", "relabelled", "unchanged") if getattr(found, kind)]
    return kind


@pytest.mark.parametrize(
    "values",
    [
        {"aliases": ("x",)},
        {"description": "x"},
        {"lazy": True},
        {"pinned": True},
        {"ttl_s": 5.0},
        {"defaults": SamplingDefaults(temperature=0.1)},
        {"prices": Prices(output=2.0)},
        {"display": Display(parameters="135M")},
        {"capabilities": ("chat",)},
    ],
)
def test_what_no_worker_looks_at_takes_no_other_worker(values: dict[str, Any]) -> None:
    assert compare(model(), model(**values)) == "relabelled"


@pytest.mark.parametrize("values", [{"context": 512}, {"kv_type": "q8_0"}, {"threads": 1}, {"max_sequences": 2}])
def test_anything_else_does(values: dict[str, Any]) -> None:
    assert compare(model(), model(**values)) == "changed"


def test_the_same_is_the_same() -> None:
    assert compare(model(), model()) == "unchanged"


def test_another_script_is_another_model() -> None:
    script = {"id": "m", "kind": "chat", "backend": "script"}

    before = ModelConfig(**script, script=(ScriptRule(text="a"),))  # type: ignore[arg-type]  # as YAML has it
    after = ModelConfig(**script, script=(ScriptRule(text="b"),))  # type: ignore[arg-type]  # as YAML has it

    assert compare(before, after) == "changed"


def test_models_are_compared_with_what_is_served() -> None:
    """One that could not be loaded the last time is tried again, though the file did not change."""
    config = HearthConfig(models=(model(context=512),))

    assert changes_between(config, config, {"m": model()}).changed == ("m",)
