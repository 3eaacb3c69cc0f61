"""Schemathesis asks a whole server whatever its document allows, and some of what it forbids.

Its examples, its coverage of every bound and type, and its fuzzing; the seed is fixed, so that a failure comes again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from server.api.openapi.encoder_operations import EMBEDDING_MODEL
from server.api.openapi.generation_operations import CHAT_MODEL
from server.api.openapi.operations import OPERATIONS
from tests.fakes.described import document
from tests.fakes.library import RERANK
from tests.fakes.whole_server import whole_server

CONFIG = """
seed = 1
color = false
suppress-health-check = ["all"]

[generation]
max-examples = 8
deterministic = true
no-shrink = true

[phases.stateful]
enabled = false

[checks]
# The second one is for `timeout_s`; both are declared where they may come.
ignored_auth.enabled = false  # this server has no keys; those that have some are asked in test_access.py
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
# What fields demand of each other is said in words, so what fits the schema may be refused.
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false

[[operations]]
include-path = "/v1/vector_stores/import"
checks.unsupported_method.enabled = false  # with other methods, `import` is the id of a store

[[operations]]
include-path = "/v1/models/{model}/load"
checks.unsupported_method.enabled = false  # with GET, `x/load` is the alias of a model

[[operations]]
include-path = "/v1/models/{model}/unload"
checks.unsupported_method.enabled = false

[[operations]]
include-path = "/v1/chat/apply_template"
phases.coverage.enabled = false  # its body is that of a chat, which is covered there
"""

PHASES = {"Examples", "Coverage", "Fuzzing"}

MODELS = {"generation": CHAT_MODEL, "tokens": CHAT_MODEL, "embeddings": EMBEDDING_MODEL, "rerank": RERANK.id}


def fill(http: httpx.Client) -> dict[str, list[str]]:
    """Make files, stores with them, and a batch; return what path parameters may be. The last of each is to spare."""

    def made(path: str, **request: Any) -> str:
        return str(http.post(path, **request).raise_for_status().json()["id"])

    files = [
        made("/v1/files", files={"file": (name, b"Knead for ten minutes.")}, data={"purpose": "assistants"})
        for name in ("a.txt", "b.txt", "c.txt")
    ]
    stores = [made("/v1/vector_stores", json={"name": name, "file_ids": files}) for name in ("a", "b", "c")]
    batch = made(f"/v1/vector_stores/{stores[0]}/file_batches", json={"file_ids": files[:2]})
    return {"file_id": files, "store_id": stores, "batch_id": [batch], "model": [CHAT_MODEL]}


def aimed(ids: dict[str, list[str]]) -> dict[str, Any]:
    """The document with names and ids that there are in place of any text: else nearly all answers would be 404."""
    aimed: dict[str, Any] = json.loads(json.dumps(document()))
    for each in OPERATIONS:
        if each.body and each.topic in MODELS:
            properties = aimed["components"]["schemas"][each.body.__name__]["properties"]
            properties["model"] = {"enum": [MODELS[each.topic], "nobody"]}
    for methods in aimed["paths"].values():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    known = ids.get(parameter["name"], [])
                    is_last = method == "delete" and bool(known)
                    parameter["schema"] = {"enum": known[-1:] if is_last else [*known[:2], "none"]}
    return aimed


ALIASES = [
    each.path
    for index, each in enumerate(OPERATIONS)
    if any(each.summary == other.summary for other in OPERATIONS[:index]) and not each.path.startswith("/v2")
]
"""Paths that lead where others lead."""


def test_answers_are_as_described(tmp_path: Path) -> None:
    with whole_server(tmp_path / "data") as url:
        with httpx.Client(base_url=url) as http:
            ids = fill(http)
        (tmp_path / "openapi.json").write_text(json.dumps(aimed(ids)))
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url),
                *(f"--exclude-path={path}" for path in ALIASES),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert {phase for phase in PHASES if re.search(rf"✅ +{phase}", done.stdout)} == PHASES, done.stdout
