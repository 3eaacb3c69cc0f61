"""Results in sections of a JSON file: a measurement replaces its own section and leaves the others alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, describe_versions, now

Section = dict[str, Any]

_FOLDER = Path(__file__).parent / "results"
CHAT = _FOLDER / "chat.json"
EMBEDDINGS = _FOLDER / "embeddings.json"
RERANK = _FOLDER / "rerank.json"
RETRIEVAL = _FOLDER / "retrieval.json"
STRUCTURED = _FOLDER / "structured.json"
VECTOR_SEARCH = _FOLDER / "vector_search.json"
INGESTION = _FOLDER / "ingestion.json"
INGEST_KILL = _FOLDER / "ingest_kill.json"
RAG = _FOLDER / "rag.json"
CHUNKS = _FOLDER / "chunks.json"
FAULTS = _FOLDER / "faults.json"
SLOW_SOCKETS = _FOLDER / "slow_sockets.json"
DISCONNECTS = _FOLDER / "disconnects.json"
HOSTILE = _FOLDER / "hostile.json"
SCHEMAS = _FOLDER / "schemas.json"
PARSERS = _FOLDER / "parsers.json"
GPU = _FOLDER / "gpu.json"
OVERLOAD = _FOLDER / "overload.json"
TEMPLATES = _FOLDER / "templates.json"
LEDGER = _FOLDER / "ledger.json"
LIFECYCLE = _FOLDER / "lifecycle.json"
SOAK = _FOLDER / "soak.json"


def load_results(path: Path = CHAT) -> Section:
    """All sections; none when nothing has been measured yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save_section(section: Section, *keys: str, path: Path = CHAT) -> None:
    """Put a section where `keys` lead, whole or not at all."""
    results = load_results(path)
    inner = results
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = section
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def environment() -> Section:
    """When and where a section was measured, and what."""
    return {"date": now(), "machine": describe_machine(), "versions": describe_versions()}
