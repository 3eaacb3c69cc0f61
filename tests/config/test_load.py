from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from server.config.load import LoadedConfig, load_config, server_settings, variable_of
from server.errors import ConfigError

ECHO = """
models:
  - id: echo
    kind: chat
    backend: script
    script: [{text: hi}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, **arguments: object) -> LoadedConfig:
    Path("models.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    return load_config(None, **{"environ": {}, **arguments})  # type: ignore[arg-type]


def complaint(text: str, **arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, **arguments)
    return caught.value.message


# ---- precedence


def test_flag_beats_environment_beats_file_beats_default(folder: Path) -> None:
    text = "server: {port: 1, host: h1, log_level: error}" + ECHO
    environ = {"HEARTH_PORT": "2", "HEARTH_HOST": "h2"}

    loaded = load(text, environ=environ, flags={"port": "3", "host": None})

    server = loaded.config.server
    assert (server.port, server.host, server.log_level, server.log_format) == (3, "h2", "error", "auto")


def test_origins_name_where_each_value_was_found(folder: Path) -> None:
    text = "server:\n  port: 1\n  host: h1\n  log_level: error" + ECHO

    origins = load(text, environ={"HEARTH_HOST": "h2"}, flags={"port": 3}).origins

    assert origins["server.port"] == "flag --port"
    assert origins["server.host"] == "HEARTH_HOST"
    assert origins["server.log_level"] == "models.yaml:4"
    assert origins["server.data_dir"] == "default"
    assert origins["models.echo.kind"] == "models.yaml:7"
    assert origins["models.echo.lazy"] == "default"


def test_every_setting_has_a_variable_of_its_own() -> None:
    names = [variable_of(setting) for setting in server_settings()]

    assert len(names) == len(set(names))
    assert {"HEARTH_HOST", "HEARTH_PORT", "HEARTH_DATA_DIR", "HEARTH_WEIGHTS_DIR", "HEARTH_MAX_BODY_MB"} <= set(names)


def test_nested_limits_come_from_the_environment_too(folder: Path) -> None:
    limits = load(ECHO, environ={"HEARTH_MAX_BODY_MB": "8"}, flags={"limits.max_inputs": 9}).config.server.limits

    assert (limits.max_body_mb, limits.max_inputs) == (8, 9)


def test_empty_variable_counts_as_unset(folder: Path) -> None:
    assert load(ECHO, environ={"HEARTH_PORT": "", "HEARTH_CONFIG": ""}).config.server.port == 8000


def test_config_variable_names_the_file(folder: Path) -> None:
    Path("other.yaml").write_text(ECHO, encoding="utf-8")

    loaded = load_config(None, environ={"HEARTH_CONFIG": "other.yaml"})

    assert loaded.path == folder / "other.yaml"


def test_unknown_variable_is_an_error_with_the_nearest_name(folder: Path) -> None:
    message = complaint(ECHO, environ={"HEARTH_PROT": "1", "PATH": "/bin"})

    assert message.startswith("HEARTH_PROT is not a known variable")
    assert message.endswith("did you mean 'HEARTH_PORT'?")


def test_wrong_variable_and_flag_are_told_by_their_own_names(folder: Path) -> None:
    message = complaint(ECHO, environ={"HEARTH_PORT": "abc"}, flags={"limits.max_body_mb": 0})

    assert message.splitlines() == [
        "HEARTH_PORT is 'abc'; expected an integer from 0 to 65535",
        "flag --max-body-mb is 0; expected an integer from 1 to 1024",
    ]


# ---- paths


def test_paths_start_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "conf/models.yaml").write_text("server: {data_dir: d}" + ECHO, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")

    loaded = load_config(Path("../conf/models.yaml"), environ={"HEARTH_WEIGHTS_DIR": "w"})

    assert loaded.config.server.data_dir == tmp_path / "conf/d"
    assert loaded.config.server.weights_dir == tmp_path / "here/w"


def test_home_is_opened_in_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")

    assert load("server: {data_dir: ~/d}" + ECHO).config.server.data_dir == Path("/home/someone/d")


GGUF = "models: [{id: m, kind: chat, backend: llama_cpp, source: 'file:m.gguf'}]"


def test_file_source_starts_at_the_folder_of_the_file(folder: Path) -> None:
    Path("m.gguf").touch()

    assert load(GGUF).config.models[0].source == f"file:{folder}/m.gguf"


def test_cache_file_starts_at_the_folder_of_the_file(folder: Path) -> None:
    encoder = "{id: m, kind: rerank, backend: sentence_transformers, source: 'hf:o/r', cache_file: c/v.sqlite}"

    assert load(f"models: [{encoder}]").config.models[0].cache_file == folder / "c/v.sqlite"


def test_absent_file_source_is_an_error_unless_files_may_be_absent(folder: Path) -> None:
    expected = f"models.yaml:1: models.m.source is 'file:{folder}/m.gguf'; there is no such file"

    assert complaint(GGUF) == expected
    assert load(GGUF, require_files=False).config.models[0].id == "m"


# ---- files that cannot be read


def test_absent_file_is_an_error_with_a_remedy(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^nowhere.yaml: the file does not exist; create it, or .*HEARTH_CONFIG$"):
        load_config(Path("nowhere.yaml"), environ={})


def test_folder_in_place_of_a_file_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(folder, environ={})


def test_text_that_is_not_utf8_is_an_error_with_its_line(folder: Path) -> None:
    Path("models.yaml").write_bytes(b"a: 1\nb: \xff\n")

    with pytest.raises(ConfigError, match=r"^models.yaml:2: the file is not UTF-8 text"):
        load_config(None, environ={})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: [", "models.yaml:2:5:"),
        ("a: 1\n b: 2", "models.yaml:2:3:"),
        ("a: \x01", "models.yaml:1:4:"),
        ("a: 1\n---\nb: 2", "models.yaml:2:1:"),
        ("a: !!python/object/apply:os.getcwd []", "models.yaml:1:4:"),
        ("a: !!int many", "models.yaml:1:1:"),
        ("a: *nowhere", "models.yaml:1:4:"),
        ("a: &a [*a]", "models.yaml:1:1:"),
        ("? [a]\n: 1", "models.yaml:1:3:"),
    ],
)
def test_broken_yaml_is_one_error_with_line_and_column(folder: Path, text: str, where: str) -> None:
    message = complaint(text)

    assert message.startswith(f"{where} not valid YAML: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "# nothing", "- a", "words", "42"])
def test_yaml_of_another_shape_is_an_error(folder: Path, text: str) -> None:
    assert complaint(text).endswith("expected a mapping of server, models, rag")


# ---- what is wrong in the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: []", "models.yaml:1: models is an empty list; expected a list that is not empty"),
        ("models:", "models.yaml:1: models is empty; expected a list that is not empty"),
        ("server: {}", "models.yaml:1: models is missing; expected a list that is not empty"),
        (
            'server:\n  port: "8000"' + ECHO,
            "models.yaml:2: server.port is '8000'; expected an integer from 0 to 65535",
        ),
        (
            "server: {limits: {load_wait_s: .nan}}" + ECHO,
            "models.yaml:1: server.limits.load_wait_s is NaN; expected a number from 0 to 3600",
        ),
        (
            "server: {limits: {max_inputs: 70000}}" + ECHO,
            "models.yaml:1: server.limits.max_inputs is 70000; expected an integer from 1 to 65536",
        ),
        (
            "models: [{id: e, kind: embedding, backend: llama_cpp, source: 'hf:o/r', prompts: {query: 5}}]",
            "models.yaml:1: models.e.prompts.query is 5; expected text; put it in quotes",
        ),
        (
            "server: {prot: 1}" + ECHO,
            "models.yaml:1: server.prot is not a known key; expected one of host, port, allow_insecure, allowed_hosts,"
            " allowed_origins, data_dir, weights_dir, log_level, log_format, tune, bulk_share, drain_s, drain_delay_s,"
            " sender_header, usage_retention_days, trace_prompts, otlp_endpoint, memory_budget_mb, model_ttl_s, limits;"
            " did you mean 'port'?",
        ),
        (
            "server: {port: 1, port: 2}" + ECHO,
            "models.yaml:1: key 'port' is given twice, first in line 1",
        ),
        (
            ECHO.replace("kind: chat", "kind: chatt"),
            "models.yaml:4: models.echo.kind is 'chatt'; expected one of 'chat', 'embedding', 'rerank';"
            " did you mean 'chat'?",
        ),
        (
            ECHO.replace("    kind: chat\n", ""),
            "models.yaml:3: models.echo.kind is missing; expected one of 'chat', 'embedding', 'rerank'",
        ),
        (
            ECHO.replace("id: echo", "id: 7"),
            "models.yaml:3: models[0].id is 7; expected text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$,"
            " at most 128 characters; put it in quotes",
        ),
        (
            ECHO + "    gpu_layers: most",
            "models.yaml:7: models.echo.gpu_layers is 'most';"
            " expected an integer of at least 0 or one of 'auto', 'all'",
        ),
        (
            ECHO + "    source: ftp:x",
            "models.yaml:7: models.echo.source is 'ftp:x'; expected one of file:PATH, hf:OWNER/REPO[@REVISION][#PATH],"
            " pypi:PACKAGE==VERSION#PATH/IN/WHEEL, where a path after # is relative and without ..",
        ),
        (
            ECHO + "    sha256: " + "0" * 60 + "abcd",
            "models.yaml:7: models.echo.sha256: does nothing for backend 'script' and kind 'chat'; remove it",
        ),
        (
            ECHO + "    gpu_layers: all",
            "models.yaml:7: models.echo.gpu_layers: does nothing for backend 'script' and kind 'chat'; remove it",
        ),
        (
            ECHO + "    capabilities: [chat, embedding]",
            "models.yaml:7: models.echo.capabilities: kind 'chat' has no capability 'embedding';"
            " expected some of chat, completion, tools, code, reasoning",
        ),
        (
            ECHO.replace("text: hi", "error: {code: worker_crash}"),
            "models.yaml:6: models.echo.script[0].error.code is 'worker_crash'; expected one of"
            " 'context_length_exceeded', 'internal_error', 'invalid_value', 'model_unavailable', 'overloaded',"
            " 'worker_crashed'; did you mean 'worker_crashed'?",
        ),
        (
            ECHO.replace("kind: chat", "kind: rerank"),
            "models.yaml:4: models.echo.kind: backend 'script' serves chat, not 'rerank'",
        ),
        (
            ECHO.replace("text: hi", "match: '('"),
            "models.yaml:6: models.echo.script[0].match is '('; expected a regular expression"
            " (missing ), unterminated subpattern at position 0)",
        ),
        (
            GGUF.replace("}]", ", context: 512, kv_cells: 256}]"),
            "models.yaml:1: models.m.kv_cells: kv_cells is 256 but one request may hold context = 512 tokens;"
            " raise kv_cells or lower context",
        ),
        (
            GGUF.replace("}]", ", kv_type: q8_0, flash_attention: 'off'}]"),
            "models.yaml:1: models.m.kv_type: kv_type 'q8_0' needs flash attention; remove `flash_attention`, or"
            " use f16",
        ),
        (
            GGUF.replace("}]", ", batch_tokens: 256, ubatch_tokens: 512}]"),
            "models.yaml:1: models.m.ubatch_tokens: ubatch_tokens is 512 but batch_tokens is 256; lower it",
        ),
        (
            GGUF.replace("}]", ", reasoning_format: aloud}]"),
            "models.yaml:1: models.m.reasoning_format is 'aloud'; expected one of 'auto', 'none', 'think', 'mistral',"
            " 'gemma'",
        ),
        (
            GGUF.replace("chat", "embedding").replace("}]", ", defaults: {temperature: 0}}]"),
            "models.yaml:1: models.m.defaults: does nothing for backend 'llama_cpp' and kind 'embedding'; remove it",
        ),
    ],
)
def test_mistake_is_told_with_line_key_value_and_what_is_allowed(folder: Path, text: str, message: str) -> None:
    assert complaint(text) == message


@pytest.mark.parametrize("second", ["id: echo", "id: other\n    aliases: [echo]"])
def test_name_used_twice_is_an_error_at_the_second_use(folder: Path, second: str) -> None:
    text = f"{ECHO}  - {second}\n    kind: chat\n    backend: script\n    script: [{{text: hi}}]"

    assert "name 'echo' is used by 'echo' already; ids and aliases must be unique" in complaint(text)


def test_all_mistakes_are_told_at_once_in_order_of_lines(folder: Path) -> None:
    text = "server: {port: no}\nport: 1" + ECHO.replace("backend: script", "backend: scrip")

    lines = complaint(text, environ={"HEARTH_X": "1"}).splitlines()

    assert [line.split(": ")[0] for line in lines[:3]] == ["models.yaml:1", "models.yaml:2", "models.yaml:6"]
    assert lines[3].startswith("HEARTH_X ")


def test_merge_keys_share_settings_between_models(folder: Path) -> None:
    text = """
    models:
      - &base {id: a, kind: chat, backend: script, script: [{text: hi}]}
      - <<: *base
        id: b
    """

    loaded = load(text)

    assert [model.id for model in loaded.config.models] == ["a", "b"]
    assert loaded.origins["models.b.kind"] == "models.yaml:3"
    assert loaded.origins["models.b.id"] == "models.yaml:5"


def test_date_in_a_description_stays_text(folder: Path) -> None:
    assert load(ECHO + "    description: 2024-01-01").config.models[0].description == "2024-01-01"


@pytest.mark.parametrize("name", ["models.yaml", "models.qwen3.yaml"])
def test_files_of_this_repository_are_right(name: str) -> None:
    path = Path(__file__).parents[2] / name

    loaded = load_config(path, environ={})

    assert {model.kind for model in loaded.config.models} == {"chat", "embedding", "rerank"}


def test_a_rag_model_without_its_chat_model_is_told_with_its_line(folder: Path) -> None:
    rag = "rag:\n  models:\n    - {id: handbook, vector_stores: [a], chat_model: ecco}\n"

    assert complaint(ECHO + rag) == (
        "models.yaml:9: rag.models[0].chat_model: 'ecco' is not a model of kind 'chat'; those here: echo"
    )


# ---- lists, and variables that are no settings


def test_a_list_in_a_variable_is_written_with_commas(folder: Path) -> None:
    environ = {"HEARTH_ALLOWED_HOSTS": "a.example, b.example", "HEARTH_ALLOWED_ORIGINS": "https://a.example"}

    server = load(ECHO, environ=environ).config.server

    assert server.allowed_hosts == ("a.example", "b.example")
    assert server.allowed_origins == ("https://a.example",)


def test_what_is_wrong_in_a_list_is_told_by_the_variables_name(folder: Path) -> None:
    message = complaint(ECHO, environ={"HEARTH_ALLOWED_ORIGINS": "https://a.example,*"})

    assert message.startswith("HEARTH_ALLOWED_ORIGINS is '*'")


@pytest.mark.parametrize("origin", ["*", "null", "https://a.example/", "https://A.example", "a.example", "https://a b"])
def test_an_origin_is_as_browsers_write_it(folder: Path, origin: str) -> None:
    assert "allowed_origins" in complaint(f"server: {{allowed_origins: ['{origin}']}}" + ECHO)


def test_a_key_for_clients_is_no_setting(folder: Path) -> None:
    of_clients = {"HEARTH_API_KEY": "hk-x", "HEARTH_API_KEY_FILE": "key"}

    assert load(ECHO, environ=of_clients).config == load(ECHO).config
