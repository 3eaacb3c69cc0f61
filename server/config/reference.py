"""The reference made from `schema.py`: the JSON Schema for editors and the tables of docs/configuration.md.

`python -m server.config.reference` rewrites both in docs/; a test compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from server.config.explain import JsonSchema, describe, resolve
from server.config.load import server_settings, variable_of
from server.config.schema import HearthConfig

_TABLE = re.compile(r"<!-- (server|models|rag) -->\n.*?<!-- end -->", re.DOTALL)


def json_schema() -> str:
    """Return the JSON Schema of models.yaml."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **HearthConfig.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def fill_tables(page: str) -> str:
    """Return docs/configuration.md with what stands between its table marks made anew."""
    tables = {"server": _server_table(), "models": _model_table(), "rag": _rag_table()}
    return _TABLE.sub(lambda mark: f"<!-- {mark[1]} -->\n{tables[mark[1]]}<!-- end -->", page)


def _server_table() -> str:
    variables = {".".join(("server", *setting)): variable_of(setting) for setting in server_settings()}
    rows = [(*row, f"`{variables[row[0]]}`" if row[0] in variables else "") for row in _rows("server", "server.")]
    return _markdown(("Key", "Value", "Default", "Meaning", "Variable"), rows)


def _model_table() -> str:
    return _markdown(("Key", "Value", "Default", "Meaning"), list(_rows("models", "")))


def _rag_table() -> str:
    return _markdown(("Key", "Value", "Default", "Meaning"), list(_rows("rag", "rag.")))


def _rows(top: str, prefix: str) -> Iterator[tuple[str, ...]]:
    root = HearthConfig.model_json_schema()
    section = resolve(root["properties"][top], root)
    yield from _section_rows(resolve(section.get("items", section), root), prefix, root)


def _section_rows(section: JsonSchema, prefix: str, root: JsonSchema) -> Iterator[tuple[str, ...]]:
    """Yield key, value, default and meaning of each key of a section, followed by those of sections inside it."""
    for name, field in section["properties"].items():
        schema = resolve(field, root)
        below, inner = (resolve(schema["items"], root), "[].") if "items" in schema else (schema, ".")
        if "properties" not in schema:
            default = "required" if name in section.get("required", ()) else _default(field.get("default"))
            yield prefix + name, describe(schema), default, field["description"]
        if "properties" in below:
            yield from _section_rows(below, prefix + name + inner, root)


def _default(value: object) -> str:
    return "" if value in (None, "", []) else f"`{json.dumps(value)}`"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *((f"`{key}`", *rest) for key, *rest in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    docs = Path(__file__).parents[2] / "docs"
    page = docs / "configuration.md"
    (docs / "models.schema.json").write_text(json_schema(), encoding="utf-8")
    page.write_text(fill_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
