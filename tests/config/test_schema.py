from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from server.config.reference import fill_tables, json_schema
from server.config.schema import KEYS_IN_USE, KEYS_OF_ALL, HearthConfig, ModelConfig
from server.config.script_section import ScriptedErrorCode, ScriptRule
from server.errors import from_code

ROOT = Path(__file__).parents[2]
REMEDY = "run: python -m server.config.reference"
ENCODERS = [
    {"id": "embedder", "kind": "embedding", "backend": "llama_cpp", "source": "file:e.gguf", "aliases": ["e"]},
    {"id": "ranker", "kind": "rerank", "backend": "llama_cpp", "source": "file:r.gguf"},
]


def test_json_schema_in_docs_is_up_to_date() -> None:
    assert (ROOT / "docs/models.schema.json").read_text(encoding="utf-8") == json_schema(), REMEDY


def test_tables_in_docs_are_up_to_date() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

    assert page == fill_tables(page), REMEDY


@pytest.mark.parametrize("name", ["models.yaml", "models.qwen3.yaml"])
def test_json_schema_accepts_the_files_of_this_repository(name: str) -> None:
    data = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))

    assert list(jsonschema.Draft202012Validator(json.loads(json_schema())).iter_errors(data)) == []


def test_settings_cannot_be_changed_after_loading() -> None:
    model = ModelConfig(id="m", kind="rerank", backend="llama_cpp", source="hf:owner/repo")

    with pytest.raises(ValidationError, match="frozen"):
        model.id = "other"  # type: ignore[misc]


def test_capabilities_follow_from_the_kind_unless_given() -> None:
    model = ModelConfig(id="m", kind="rerank", backend="llama_cpp", source="hf:owner/repo")

    assert model.effective_capabilities == ("rerank",)
    assert model.model_copy(update={"capabilities": ("code",)}).effective_capabilities == ("code",)


def test_every_key_of_a_model_is_in_use_somewhere() -> None:
    assert {*KEYS_OF_ALL, *(key for keys in KEYS_IN_USE.values() for key in keys)} == ModelConfig.model_fields.keys()


def test_a_dump_with_all_defaults_is_read_again() -> None:
    """Workers get their model this way, and `hearth config show` prints it."""
    model = ModelConfig(id="m", kind="chat", backend="script", script=(ScriptRule(),))

    assert ModelConfig.model_validate_json(model.model_dump_json()) == model


def test_a_cache_file_without_a_cache_is_refused() -> None:
    with pytest.raises(ValidationError, match="cache_mb is 0, so nothing is remembered"):
        ModelConfig(id="m", kind="rerank", backend="llama_cpp", source="hf:o/r", cache_mb=0, cache_file=Path("v"))


@pytest.mark.parametrize(
    ("rag", "complaint"),
    [
        ({"embedding_model": "ranker"}, "'ranker' is not a model of kind 'embedding'; those here: embedder"),
        ({"embedding_model": "none"}, "'none' is not a model of kind 'embedding'"),
        ({"rerank_model": "nobody"}, "'nobody' is not a model of kind 'rerank'; those here: ranker"),
        ({"chat_model": "ranker"}, "'ranker' is not a model of kind 'chat'; those here: none"),
    ],
)
def test_retrieval_uses_models_that_are_there(rag: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        HearthConfig.model_validate({"models": ENCODERS, "rag": rag})


@pytest.mark.parametrize(
    "rag", [{}, {"embedding_model": "e", "rerank_model": "none", "chat_model": "none"}, {"rerank_model": "ranker"}]
)
def test_models_of_retrieval_go_by_id_alias_or_none(rag: dict[str, str]) -> None:
    config = HearthConfig.model_validate({"models": ENCODERS, "rag": rag})

    assert config.rag.model_dump(exclude_unset=True) == rag


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"chat_model": "nobody"}, "'nobody' is not a model of kind 'chat'; those here: echo"),
        ({"chat_model": "ranker"}, "'ranker' is not a model of kind 'chat'"),
        ({"chat_model": "handbook"}, "'handbook' is not a model of kind 'chat'"),
        ({"id": "echo"}, "name 'echo' is used by 'echo' already"),
        ({"aliases": ["e"]}, "name 'e' is used by 'embedder' already"),
        ({"vector_stores": []}, "at least 1 item"),
        ({"embedding_weight": 0, "text_weight": 0}, "nothing would be found"),
    ],
)
def test_a_rag_model_binds_a_chat_model_under_a_name_of_its_own(changes: dict[str, object], complaint: str) -> None:
    echo = {"id": "echo", "kind": "chat", "backend": "script", "script": [{"text": "hi"}]}
    model = {"id": "handbook", "chat_model": "echo", "vector_stores": ["manuals"]}
    HearthConfig.model_validate({"models": [*ENCODERS, echo], "rag": {"models": [model]}})

    with pytest.raises(ValidationError, match=complaint):
        HearthConfig.model_validate({"models": [*ENCODERS, echo], "rag": {"models": [{**model, **changes}]}})


@pytest.mark.parametrize("code", get_args(ScriptedErrorCode))
def test_scripted_error_codes_are_those_of_errors(code: str) -> None:
    assert type(from_code(code, "")).code == code


def test_every_key_is_described() -> None:
    root = HearthConfig.model_json_schema()
    keys = [key for section in (root, *root["$defs"].values()) for key in section["properties"].values()]

    assert [key for key in keys if not key.get("description") and "$ref" not in key] == []


def on_gpu(**settings: object) -> ModelConfig:
    values = {"id": "m", "kind": "chat", "backend": "llama_cpp", "source": "file:m.gguf", **settings}
    return ModelConfig.model_validate(values)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_a_device_is_named_as_torch_names_it(device: str) -> None:
    assert on_gpu(device=device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""])
def test_a_device_of_another_name_is_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        on_gpu(device=device)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"device": "cpu", "gpu_layers": "all"}, "gpu_layers is all but device is 'cpu'"),
        ({"device": "cpu", "gpu_layers": 3}, "gpu_layers is 3 but device is 'cpu'"),
        ({"device": "cuda:1", "tensor_split": [1, 1]}, "device is 'cuda:1', so there is nothing to share out"),
        ({"split": "none", "tensor_split": [1, 1]}, "split is 'none', so there is nothing to share out"),
        ({"tensor_split": [0, 0]}, "all parts are 0"),
    ],
)
def test_what_contradicts_itself_about_gpus_is_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        on_gpu(**settings)


@pytest.mark.parametrize("settings", [{"device": "cpu", "gpu_layers": 0}, {"split": "row", "tensor_split": (3, 1)}])
def test_what_fits_together_about_gpus_is_taken(settings: dict[str, object]) -> None:
    taken = on_gpu(**settings)

    assert {name: getattr(taken, name) for name in settings} == settings
