"""What is different in another models.yaml, and what of that a running server can take over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.config.load import flatten
from server.config.schema import HearthConfig, ModelConfig

HOT_KEYS = frozenset(("server.memory_budget_mb", "server.model_ttl_s"))
"""Keys below `server` that a reload puts in force."""

COLD_RAG_KEYS = ("rag.parser.", "rag.index_memory_mb")
"""Keys below `rag`, or their beginnings, that it does not: what they bound is there already."""


@dataclass(frozen=True)
class Changes:
    """Between the configuration in force and another one. Models go by their ids, in the order of models.yaml.

    Attributes:
        changed: Models that take another worker.
        relabelled: Models of which only changed what no worker looks at.
        needs_restart: Keys of settings that stay as they are until the server is started anew.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    relabelled: tuple[str, ...]
    unchanged: tuple[str, ...]
    needs_restart: tuple[str, ...]


def changes_between(old: HearthConfig, new: HearthConfig, served: Mapping[str, ModelConfig]) -> Changes:
    """Compare configurations; models with what is `served`, which may be older: a new one may have failed to load."""
    wanted = {model.id: model for model in new.models}
    kept = [model_id for model_id in wanted if model_id in served]
    changed = [each for each in kept if wanted[each].worker_part != served[each].worker_part]
    same = [each for each in kept if each not in changed]
    return Changes(
        added=tuple(model_id for model_id in wanted if model_id not in served),
        removed=tuple(model_id for model_id in served if model_id not in wanted),
        changed=tuple(changed),
        relabelled=tuple(each for each in same if wanted[each] != served[each]),
        unchanged=tuple(each for each in same if wanted[each] == served[each]),
        needs_restart=tuple(_cold_differences(old, new)),
    )


def _cold_differences(old: HearthConfig, new: HearthConfig) -> list[str]:
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key) and _is_cold(key)]
    return sorted(keys)


def _is_cold(key: str) -> bool:
    if key.startswith("server."):
        return key not in HOT_KEYS
    return key.startswith(COLD_RAG_KEYS)
