"""What the live server serves: the default models, a scripted one, and three whose weights are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]

CHAT, EMBEDDING, RERANK = "smollm2-135m-instruct", "all-minilm-l6-v2", "ms-marco-minilm-l12-v2"
DEFAULTS: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "models.yaml").read_text(encoding="utf-8"))["models"]

SCRIPT: dict[str, Any] = {
    "id": "script",
    "kind": "chat",
    "backend": "script",
    "capabilities": ["chat", "completion", "tools"],
    "script": [
        {"match": "^slow", "text": "one two three four five six seven eight nine ten", "delay_ms": 150},
        {"match": "^tool", "tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]},
        {"match": "^think", "reasoning": "well then", "text": "yes"},
        {"match": "^fail", "text": "half an ", "error": {"code": "overloaded", "message": "as the script says"}},
        {"match": "^crash", "text": "half an ", "delay_ms": 100, "error": {"code": "worker_crashed"}},
        {"text": "you said {input}"},
    ],
}

RAG: dict[str, Any] = {
    "id": "librarian",
    "chat_model": CHAT,
    "vector_stores": ["library"],
    "aliases": ["team/librarian"],
}

MAX_UPLOAD_MB = 8

BROKEN: list[dict[str, Any]] = [
    {"id": name, "kind": "chat", "backend": "llama_cpp", "source": f"file:{name}.gguf"}
    for name in ("corrupt", "truncated", "absent")
]


def write_broken_weights(folder: Path) -> None:
    """A file that only begins like GGUF, and one that ends early; nothing for the model whose file is absent."""
    (folder / "corrupt.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 64)
    (whole,) = (REPOSITORY / "weights" / CHAT).glob("*.gguf")
    with whole.open("rb") as weights:
        (folder / "truncated.gguf").write_bytes(weights.read(8 << 20))


def ask(text: str, model: str = "script", **more: object) -> dict[str, object]:
    """Body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
