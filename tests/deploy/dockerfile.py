"""Enough of Dockerfiles and .dockerignore to hold ours against what they promise."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[2]

KNOWN = {
    *("ARG", "FROM", "RUN", "COPY", "ADD", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"),
    *("ENTRYPOINT", "CMD", "LABEL", "SHELL", "ONBUILD"),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined.

    Attributes:
        flags: What stands before the rest as `--name=value`.
    """

    name: str
    flags: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """Of the exec form, which is JSON, or of a line."""
        return [str(word) for word in json.loads(self.rest)] if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(frozen=True)
class Stage:
    base: str
    name: str
    instructions: list[Instruction]

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def only(self, name: str) -> Instruction:
        [found] = self.all(name)
        return found

    @property
    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for each in self.all("ENV") for word in each.words)


def parse_dockerfile(text: str) -> tuple[list[Instruction], list[Stage]]:
    """Return what stands before the first stage, and the stages."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    first: list[Instruction] = []
    stages: list[Stage] = []
    for instruction in map(_instruction, filter(str.strip, joined.splitlines())):
        if instruction.name == "FROM":
            base, _as, name = instruction.words
            stages.append(Stage(base, name, []))
        else:
            (stages[-1].instructions if stages else first).append(instruction)
    return first, stages


def _instruction(line: str) -> Instruction:
    name, rest = line.split(maxsplit=1)
    flags = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name, flags, rest)


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a path out of a build: the last pattern that fits it, or a folder of its, decides."""
    parts = path.split("/")
    folders = ["/".join(parts[: length + 1]) for length in range(len(parts))]
    ignored = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        at_any_depth = wanted.removeprefix("**/") if wanted.startswith("**/") else None
        if any(fnmatchcase(each, wanted) and wanted.count("/") == each.count("/") for each in folders) or (
            at_any_depth is not None and at_any_depth in parts
        ):
            ignored = not pattern.startswith("!")
    return ignored
