"""Read the configuration once: flag > `HEARTH_*` environment variable > models.yaml > default.

Everything that is wrong is reported together, as one `ConfigError` with a line for each problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

from pydantic import BaseModel, ValidationError

from server.config.document import Document, Location, Problem, YamlError, parse_yaml
from server.config.explain import explain, nearest
from server.config.schema import HearthConfig, ModelConfig
from server.config.server_section import ServerSettings
from server.errors import ConfigError

CONFIG_VARIABLE = "HEARTH_CONFIG"
DEFAULT_PATH = Path("models.yaml")
CLIENT_VARIABLES = ("HEARTH_API_KEY", "HEARTH_API_KEY_FILE")
"""Read by the commands that ask a server, and no settings of one."""


@dataclass(frozen=True)
class LoadedConfig:
    """The configuration and where it came from.

    Attributes:
        config: Checked settings; all their paths are absolute, those inside `file:` sources too.
        path: models.yaml, absolute.
        origins: Key to where its value was found: `server.port` to `flag --port`, `HEARTH_PORT`, `models.yaml:6` or
            `default`. A model's keys go by its id: `models.qwen.context`.
    """

    config: HearthConfig
    path: Path
    origins: dict[str, str]


@dataclass(frozen=True)
class _Override:
    """A value that comes from outside the file, under the name that the user gave it by."""

    value: object
    origin: str


def load_config(
    path: Path | None,
    *,
    flags: Mapping[str, object] = MappingProxyType({}),
    environ: Mapping[str, str],
    require_files: bool = True,
) -> LoadedConfig:
    """Read and check models.yaml, the environment and flags.

    Args:
        path: models.yaml; None means `HEARTH_CONFIG`, and without that `models.yaml` in the working directory.
        flags: Server settings from the command line, e.g. `{"port": 9000, "limits.max_body_mb": 8}`; None is not given.
        environ: The environment. Empty variables count as unset.
        require_files: Refuse a `file:` source that does not exist. A server switches this off: it starts without a
            model whose weights are absent, and says so.

    Raises:
        ConfigError: One line for each thing that is wrong: file, line, key, value, what is allowed, nearest name.
    """
    path = path or Path(environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)
    document = _read(path)
    config, problems = _check_document(document)
    overrides, unknown = _collect_overrides(flags, environ)
    server, wrong = _override_settings(config.server if config else ServerSettings(), path.parent, overrides)
    if config:
        models = tuple(_anchor_paths(model, path.parent) for model in config.models)
        config = config.model_copy(update={"server": server, "models": models})
        problems += _missing_files(config, document) if require_files else []
    lines = [_in_file(path, problem) for problem in sorted(problems, key=lambda problem: problem.line)]
    if config is None or lines or unknown or wrong:
        raise ConfigError("\n".join([*lines, *unknown, *wrong]))
    return LoadedConfig(config, path.resolve(), dict(_origins(config, path, document, overrides)))


def variable_of(setting: Sequence[str]) -> str:
    """Return the environment variable of a server setting, e.g. `HEARTH_MAX_BODY_MB` for `limits.max_body_mb`."""
    return f"HEARTH_{setting[-1].upper()}"


def server_settings(section: type[BaseModel] = ServerSettings) -> Iterator[tuple[str, ...]]:
    """Yield every setting below `server`, sections opened: `("port",)`, `("limits", "max_body_mb")`, ..."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *rest) for rest in server_settings(field.annotation))
        else:
            yield (name,)


def flatten(config: HearthConfig) -> dict[str, object]:
    """Return each value, as JSON has it, by its key in `LoadedConfig.origins`."""
    ids = [model.id for model in config.models]
    return {_key(location, ids): value for location, value in _leaves(config.model_dump(mode="json"))}


# ---- the file


def _read(path: Path) -> Document:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        hint = f"create it, or name another with --config or {CONFIG_VARIABLE}"
        raise ConfigError(f"{path}: the file does not exist; {hint}") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: the file cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{path}:{line}: the file is not UTF-8 text; save it as UTF-8") from exc
    except YamlError as exc:
        raise ConfigError(f"{path}:{exc.line}:{exc.column}: not valid YAML: {exc.message}") from exc


def _check_document(document: Document) -> tuple[HearthConfig | None, list[Problem]]:
    problems = list(document.problems)
    if not isinstance(document.data, dict):
        what = "is empty" if document.data is None else "is not a mapping"
        return None, [Problem(1, f"the file {what}; expected a mapping of {', '.join(HearthConfig.model_fields)}")]
    try:
        # By way of JSON: strict there means that "8000" is no port, while lists and paths still have a spelling.
        return HearthConfig.model_validate_json(json.dumps(document.data, default=str), strict=True), problems
    except ValidationError as exc:
        ids = _known_ids(document.data.get("models"))
        texts = explain(exc, HearthConfig)
        problems += [Problem(document.line_of(at), _key(at, ids) + text) for at, text in texts.items()]
        return None, problems


def _missing_files(config: HearthConfig, document: Document) -> list[Problem]:
    problems = []
    for index, model in enumerate(config.models):
        path = _file_of(model)
        if path is not None and not path.exists():
            line = document.line_of(("models", index, "source"))
            problems.append(Problem(line, f"models.{model.id}.source is '{model.source}'; there is no such file"))
    return problems


def _in_file(path: Path, problem: Problem) -> str:
    return f"{path}:{problem.line}: {problem.message}"


# ---- environment and flags


def _collect_overrides(
    flags: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[dict[Location, _Override], list[str]]:
    """Return what is set outside the file, and a line for each unknown variable."""
    settings = {variable_of(setting): setting for setting in server_settings()}
    overrides: dict[Location, _Override] = {}
    unknown = []
    others = (CONFIG_VARIABLE, *CLIENT_VARIABLES)
    for name in sorted(environ):
        if name in settings and environ[name]:
            overrides[settings[name]] = _Override(environ[name], name)
        elif name.startswith("HEARTH_") and name not in settings and name not in others:
            known = [*settings, *others]
            unknown.append(f"{name} is not a known variable; expected one of {', '.join(known)}{nearest(name, known)}")
    for key, value in flags.items():
        if value is not None:
            setting = tuple(key.split("."))
            overrides[setting] = _Override(value, f"flag --{setting[-1].replace('_', '-')}")
    return overrides, unknown


def _override_settings(
    server: ServerSettings, folder: Path, overrides: Mapping[Location, _Override]
) -> tuple[ServerSettings, list[str]]:
    """Put overrides over the file's settings, and make paths absolute: the file's from its folder, others from here."""
    values = server.model_dump()
    for setting in server_settings():
        section = values
        for name in setting[:-1]:
            section = section[name]
        override = overrides.get(setting)
        if override is not None:
            section[setting[-1]] = _like(section[setting[-1]], override.value)
        elif isinstance(section[setting[-1]], Path):
            section[setting[-1]] = _absolute(folder, section[setting[-1]])
    try:
        return ServerSettings.model_validate(values), []
    except ValidationError as exc:
        texts = explain(exc, ServerSettings)
        return server, [overrides[_setting_at(place)].origin + text for place, text in texts.items()]


def _like(present: object, value: object) -> object:
    """What comes from outside the file, made what the setting is: a path, or a list, which is written with commas."""
    if isinstance(present, Path):
        return _absolute(Path.cwd(), str(value))
    if isinstance(present, tuple) and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _setting_at(place: Location) -> Location:
    """The setting that an item of a list is of."""
    return tuple(part for part in place if isinstance(part, str))


# ---- paths, keys, origins


def _absolute(folder: Path, path: Path | str) -> Path:
    path = Path(path)
    if path.parts[:1] == ("~",):  # `~name` stays as it is: nobody means another user's home
        path = path.expanduser()
    return (folder / path).resolve()


def _file_of(model: ModelConfig) -> Path | None:
    if model.source is None or not model.source.startswith("file:"):
        return None
    return Path(model.source.removeprefix("file:"))


def _anchor_paths(model: ModelConfig, folder: Path) -> ModelConfig:
    anchored: dict[str, object] = {}
    if path := _file_of(model):
        anchored["source"] = f"file:{_absolute(folder, path)}"
    if model.cache_file:
        anchored["cache_file"] = _absolute(folder, model.cache_file)
    return model.model_copy(update=anchored) if anchored else model


def _key(location: Location, model_ids: Sequence[str | None]) -> str:
    """Write a location as people do: `models.qwen.context`, or `models[2].context` where no id tells which."""
    text = ""
    for depth, part in enumerate(location):
        if isinstance(part, str):
            text += f".{part}"
        else:
            model_id = model_ids[part] if location[:depth] == ("models",) else None
            text += f".{model_id}" if model_id else f"[{part}]"
    return text.removeprefix(".")


def _known_ids(models: object) -> list[str | None]:
    """Return the id of each entry of an unchecked list of models; None where it cannot name the entry."""
    entries = models if isinstance(models, list) else []
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    is_name = [isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) and ids.count(name) == 1 for name in ids]
    return [name if known else None for name, known in zip(ids, is_name, strict=True)]


def _origins(
    config: HearthConfig, path: Path, document: Document, overrides: Mapping[Location, _Override]
) -> Iterator[tuple[str, str]]:
    ids = [model.id for model in config.models]
    for location, _ in _leaves(config.model_dump()):
        override = overrides.get(location[1:])  # only settings below `server` have any
        if override is not None:
            origin = override.origin
        elif location in document.lines:
            origin = f"{path}:{document.lines[location]}"
        else:
            origin = "default"
        yield _key(location, ids), origin


def _leaves(value: object, at: Location = ()) -> Iterator[tuple[Location, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*at, key))
    elif at == ("models",):  # the one list whose items have origins of their own
        for index, item in enumerate(cast(Sequence[object], value)):
            yield from _leaves(item, (*at, index))
    else:
        yield at, value
