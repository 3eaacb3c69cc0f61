"""YAML text to plain data, remembering the line of every key. Knows nothing of what the keys mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

Location = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to a value."""

_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; 0 when no line is to blame."""

    line: int
    message: str


@dataclass(frozen=True)
class Document:
    """What a YAML file says.

    Attributes:
        data: Mappings, lists and scalars, as the file has them.
        lines: Line of each key and list item, from 1; `()` is the whole file.
        problems: What YAML allows and we do not: keys given twice.
    """

    data: object
    lines: dict[Location, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line_of(self, location: Location) -> int:
        """Return the line of `location`, or of the nearest thing around it that the file does mention."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines.get(location, 1)


class YamlError(Exception):
    """The text is not YAML. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as text: no setting is a date, and `2024-01-01` in a description is words."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute, replaced and not changed
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str) -> Document:
    """Parse `text`, which holds one YAML document of plain data.

    Raises:
        YamlError: Bad syntax, a Python tag, or an alias that contains itself.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Document(None, {(): 1})
            lines: dict[Location, int] = {}
            problems: list[Problem] = []
            # Before construction, which rewrites merge keys (`<<`) and takes the last of equal keys in silence.
            _walk(root, (), lines, problems)
            return Document(loader.construct_document(root), lines, tuple(problems))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlError(" ".join(filter(None, (exc.context, exc.problem))), *where) from exc
    except yaml.YAMLError as exc:  # a character that YAML forbids: no mark, only an offset
        position = getattr(exc, "position", 0)
        line = text.count("\n", 0, position) + 1
        raise YamlError(getattr(exc, "reason", str(exc)), line, position - text.rfind("\n", 0, position)) from exc
    except RecursionError as exc:
        raise YamlError("nested too deeply, or an alias contains itself", 1, 1) from exc
    except (ValueError, KeyError, AttributeError) as exc:  # what PyYAML lets through for `!!int abc`, `!!bool abc`, ...
        raise YamlError(f"a value does not fit its type ({exc})", 1, 1) from exc


def _walk(node: yaml.Node, at: Location, lines: dict[Location, int], problems: list[Problem]) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*at, index), lines, problems)
    elif isinstance(node, yaml.MappingNode):
        _walk_mapping(node, at, lines, problems)


def _walk_mapping(node: yaml.MappingNode, at: Location, lines: dict[Location, int], problems: list[Problem]) -> None:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE_TAG or not isinstance(key, yaml.ScalarNode):
            continue  # a list or mapping as key is refused at construction
        if key.value in seen:
            problems.append(Problem(line, f"key {key.value!r} is given twice, first in line {seen[key.value]}"))
        else:
            seen[key.value] = line
            lines.setdefault((*at, key.value), line)
            _walk(value, (*at, key.value), lines, problems)
    for key, value in node.value:  # after the node's own keys, which win
        if key.tag == _MERGE_TAG:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(merged, yaml.MappingNode):
                    _walk_mapping(merged, at, lines, [])  # its problems were told where it stands
