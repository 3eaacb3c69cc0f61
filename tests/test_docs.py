"""Whatever a user can type is documented: routes, parameters, error codes, configuration keys, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from server.api.errors import ERROR_TABLE, FORBIDDEN_CODES, HTTP_CODES, INVALID_CODES
from server.api.openapi.operations import OPERATIONS
from server.api.routes import build_routes
from server.api.schemas.grounding import FileSearchTool
from server.api.schemas.messages import CustomTool
from server.api.schemas.responses import ReasoningOptions, TextOptions
from server.api.schemas.vector_stores import HybridSearch, RankingOptions
from server.api.validation import PYDANTIC_CODES
from server.cli.main import app as cli
from server.config.schema import HearthConfig
from server.config.script_section import ScriptedErrorCode
from server.config.server_section import Limits
from server.models.registry import ModelRegistry
from server.services import build_services

ROOT = Path(__file__).parent.parent
API = (ROOT / "docs/api.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
NEVER_SENT = {"error", "config_error", "weights_error", "load_failed"}  # clients get `internal_error` for these
ALL_PAGES = "\n".join(page.read_text() for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])


def routes() -> list[str]:
    limits = Limits()
    services = build_services(ModelRegistry([]), limits, started_at_s=0, version="")
    return [
        f"{method} {re.sub(':path', '', route.path)}"
        for route in build_routes(services, limits)
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def error_codes() -> set[str]:
    return {cls.code for cls in ERROR_TABLE} | {*INVALID_CODES, *FORBIDDEN_CODES, *HTTP_CODES.values()}


def config_keys(section: dict[str, object], definitions: dict[str, dict[str, object]]) -> Iterator[str]:
    """The last names of all keys that hold a value; sections are told by what is in them."""
    properties = section.get("properties")
    assert isinstance(properties, dict)
    for name, field in properties.items():
        named = [definitions[definition] for definition in re.findall(r"#/\$defs/(\w+)", str(field))]
        sections = [definition for definition in named if "properties" in definition]
        if not sections:
            yield name
        for inner in sections:
            yield from config_keys(inner, definitions)


def commands() -> list[str]:
    """Every command line without its options, e.g. `hearth config check`."""
    return list(_commands_below(typer.main.get_command(cli), "hearth"))


def _commands_below(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path
        return
    for name, child in children.items():
        yield from _commands_below(child, f"{path} {name}")


@pytest.mark.parametrize("route", routes())
def test_every_route_is_documented(route: str) -> None:
    assert f"`{route}`" in API


def request_schemas() -> list[type[BaseModel]]:
    """What requests are validated as, and what of that has fields of its own, in a table or in words."""
    taken = [schema for each in OPERATIONS for schema in (each.body, each.form, each.query) if schema]
    inner = (FileSearchTool, CustomTool, ReasoningOptions, TextOptions, RankingOptions, HybridSearch)
    return [*dict.fromkeys(taken), *inner]


@pytest.mark.parametrize("schema", request_schemas())
def test_every_parameter_is_documented(schema: type[BaseModel]) -> None:
    typed = [field.alias or name for name, field in schema.model_fields.items()]
    missing = [name for name in typed if f"`{name}`" not in API]

    assert not missing


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = dict(re.findall(r"^\| \d+ \| `(\w+)` (\|)", API, re.MULTILINE))

    assert set(documented) == error_codes()
    for cls, (status, _type) in ERROR_TABLE.items():
        assert f"| {status} | `{cls.code}` |" in API


def test_every_error_code_in_the_source_is_documented() -> None:
    """A code is given as `code="..."`, as a worker's `Failed("...", ...)`, or in place of one of pydantic's."""
    source = "\n".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))

    given = re.findall(r'\b(?:code(?:: str)? ?= ?|Failed\(\s*)"(\w+)"', source)

    assert {*given, *PYDANTIC_CODES.values(), *HTTP_CODES.values()} - NEVER_SENT == error_codes()


def test_scripts_can_fail_with_documented_codes_only() -> None:
    assert set(get_args(ScriptedErrorCode)) <= error_codes()


def test_every_configuration_key_is_documented() -> None:
    schema = HearthConfig.model_json_schema()

    documented = set(re.findall(r"^\| `(?:[\w\[\]]+\.)*(\w+)`", CONFIGURATION, re.MULTILINE))
    missing = set(config_keys(schema, schema["$defs"])) - documented

    assert not missing


def test_every_command_is_documented() -> None:
    missing = [command for command in commands() if command not in ALL_PAGES]

    assert not missing


def test_every_command_has_its_place_in_the_help() -> None:
    registered = [*cli.registered_commands, *cli.registered_groups]

    assert [each for each in registered if not each.rich_help_panel] == []


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", ALL_PAGES)

    missing = [
        f"{path}::{name}" for path, name in named if f"def {name}" not in (ROOT / path).read_text(encoding="utf-8")
    ]

    assert named
    assert not missing


def test_every_documented_command_exists() -> None:
    known = {command.split()[1] for command in commands()}

    assert set(re.findall(r"`hearth ([a-z]+)", ALL_PAGES)) <= known
