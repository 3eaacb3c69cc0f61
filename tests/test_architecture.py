"""The rules of docs/architecture.md that a reader cannot see at a glance: who may import whom, and what stays out.

Every import statement of `server/` counts, those inside functions too.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down. A module may import its own unit and the units of lower layers, never a neighbour in its layer.
# A unit is a folder of server/, or a file directly below it.
LAYERS = (
    ("cli",),
    ("app",),
    ("opened_library",),
    ("api",),
    ("services",),
    ("access", "models", "rag", "workers"),  # capabilities, joined through protocols
    ("engine", "encoders", "prompting", "storage"),  # mechanisms
    ("bindings",),
    (
        "config",
        "telemetry",
        "protocols",
        "asked_child",
        "asker",
        "background",
        "caller",
        "device_needs",
        "fair_shares",
        "faults",
        "loadgen",
        "token_guess",
    ),
    ("types",),
    ("errors",),
    ("__init__",),
)

# Where each third-party package may be imported. A new dependency needs a line here, and a reason for its place.
HOMES = {
    "msgspec": ("server",),
    "numpy": ("server",),
    "typer": ("server.cli",),
    "rich": ("server.cli",),
    "uvicorn": ("server.cli",),
    "uvloop": ("server.cli",),
    "httpx": ("server.cli",),
    "httptools": ("server.cli.http_protocol", "server.loadgen.connection"),
    "matplotlib": ("server.cli.bench_chart",),
    "starlette": ("server.api", "server.app"),
    "orjson": ("server.api",),
    "python_multipart": ("server.api.upload",),
    "watchfiles": ("server.cli.ingest",),
    "pydantic": ("server.api", "server.config"),
    "pydantic_core": ("server.api", "server.config"),
    "pynvml": ("server.bindings",),
    "psutil": ("server.services.diagnosis",),
    "tiktoken": ("server.services.token_reader",),
    "zmq": ("server.workers",),
    "huggingface_hub": ("server.models.hub",),
    "tqdm": ("server.models.hub",),
    "jinja2": ("server.prompting.sandboxed_template",),
    "onnxruntime": ("server.encoders",),
    "sentence_transformers": ("server.encoders",),
    "tokenizers": ("server.encoders",),
    "torch": ("server.encoders",),
    "transformers": ("server.encoders",),
    "llama_cpp": ("server.bindings",),
    "llguidance": ("server.engine",),
    "faiss": ("server.rag.vector_index",),
    "charset_normalizer": ("server.rag.loaders",),
    "ir_measures": ("server.rag.evaluation",),
    "docx": ("server.rag.loaders.word",),
    "markdown_it": ("server.rag.loaders.markdown_text",),
    "openpyxl": ("server.rag.loaders.spreadsheet",),
    "pptx": ("server.rag.loaders.slides",),
    "pypdfium2": ("server.rag.loaders.pdf",),
    "selectolax": ("server.rag.loaders.html_page",),
    "yaml": ("server.config", "server.cli.config"),
    "structlog": ("server.telemetry",),
    "prometheus_client": ("server.telemetry",),
    "opentelemetry": ("server.telemetry.tracing",),
}

MODEL_RUNTIMES = ("llama_cpp", "llguidance", "torch", "sentence_transformers", "transformers", "onnxruntime")


@dataclass(frozen=True)
class Import:
    """`module`, at `line` of its file, imports `target`; both with dots."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module} (line {self.line}) imports {self.target}"


def _module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


FILES = {_module_name(path): path for path in sorted((ROOT / "server").rglob("*.py"))}


def _imports_of(module: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module} (line {node.lineno}): write imports with all names"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield Import(module, node.lineno, submodule if submodule in FILES else node.module)


IMPORTS = [found for module in FILES for found in _imports_of(module)]
OWN = [found for found in IMPORTS if found.target.split(".")[0] == "server"]
FOREIGN = [found for found in IMPORTS if found.target.split(".")[0] not in {"server", *sys.stdlib_module_names}]


def _unit(module: str) -> str:
    _, unit, *_ = [*module.split("."), "__init__"]
    return unit


def _rank(unit: str) -> int:
    return next(rank for rank, units in enumerate(LAYERS) if unit in units)


def _may_import(found: Import) -> bool:
    importer, imported = _unit(found.module), _unit(found.target)
    return importer == imported or _rank(importer) < _rank(imported)


def _is_at_home(found: Import) -> bool:
    homes = HOMES.get(found.target.split(".")[0], ())
    return any(f"{found.module}.".startswith(f"{home}.") for home in homes)


def test_every_unit_has_a_layer() -> None:
    assert {_unit(module) for module in FILES} == {unit for units in LAYERS for unit in units}


def test_imports_go_down_or_stay_inside_a_unit() -> None:
    assert [str(found) for found in OWN if not _may_import(found)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {found.target for found in OWN if found.module == module} - {module} for module in FILES}

    graphlib.TopologicalSorter(graph).prepare()


def test_third_party_packages_stay_where_they_belong() -> None:
    assert [str(found) for found in FOREIGN if not _is_at_home(found)] == []


def test_no_home_outlives_its_package() -> None:
    assert set(HOMES) - {found.target.split(".")[0] for found in FOREIGN} == set()


def test_nobody_imports_the_main_module_of_a_worker() -> None:
    """It imports a model runtime, and is started by name in a process of its own."""
    mains = {"server.workers.chat_worker", "server.workers.encoder_worker", "server.workers.script_worker"}
    mains |= {"server.rag.parser_child", "server.engine.grammar_child"}

    assert mains <= FILES.keys()
    assert [str(found) for found in OWN if found.target in mains] == []


def test_only_the_child_that_may_die_of_it_reads_documents() -> None:
    users = {found.module for found in OWN if found.target.startswith("server.rag.loaders")}

    assert {name for name in users if not name.startswith("server.rag.loaders")} == {"server.rag.parser_child"}


@pytest.mark.parametrize("what", ["import server.app", "import server.cli.main", "build the app of models.yaml"])
def test_the_api_process_stays_free_of_model_runtimes(what: str) -> None:
    build = """
import asyncio
from pathlib import Path
from server.app import build_app
from server.config.load import load_config
from server.models.weights import WeightsStore

async def main():
    settings = load_config(Path("models.yaml"), environ={}, require_files=False).config
    app = build_app(settings, WeightsStore(settings.server.weights_dir, Path("cache")))
    await app.state.supervisor.stop()

asyncio.run(main())
"""
    code = what if what.startswith("import") else build
    report = f"{code}\nimport sys\nprint(sorted(set(sys.modules) & set({MODEL_RUNTIMES!r})))"

    done = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("[]\n", "")
