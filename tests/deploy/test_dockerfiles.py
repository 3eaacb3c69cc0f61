"""No container engine runs where tests do: what can be said of the Dockerfiles without building them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from scripts.compilers import DEBIAN_PACKAGES
from scripts.environment import _MADE_FROM
from server.cli.main import app as cli
from server.config.load import CONFIG_VARIABLE, server_settings, variable_of
from tests.deploy.dockerfile import KNOWN, ROOT, Stage, is_ignored, parse_dockerfile

NAMES = ("Dockerfile", "Dockerfile.cuda")
IGNORED = [
    line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")
]


@pytest.fixture(params=NAMES)
def text(request: pytest.FixtureRequest) -> str:
    return (ROOT / str(request.param)).read_text()


@pytest.fixture
def stages(text: str) -> list[Stage]:
    return parse_dockerfile(text)[1]


def test_every_instruction_is_one(text: str) -> None:
    first, stages = parse_dockerfile(text)

    assert {each.name for each in first} == {"ARG"}
    assert {each.name for stage in stages for each in stage.instructions} <= KNOWN


def test_stages_begin_with_bases_that_may_be_given_by_digest(text: str) -> None:
    first, stages = parse_dockerfile(text)
    defaults = dict(each.rest.split("=", 1) for each in first)

    assert [stage.name for stage in stages] == ["build", "run"]
    for stage in stages:
        name = re.fullmatch(r"\$\{(\w+)\}", stage.base)
        assert name, stage.base
        assert re.fullmatch(r"[a-z/]+:[\w.-]*\d[\w.-]*", defaults[name[1]])  # a release, and no registry's host


def test_what_is_copied_from_a_stage_is_from_an_earlier_one(stages: list[Stage]) -> None:
    for number, stage in enumerate(stages):
        earlier = {each.name for each in stages[:number]}
        assert {each.flags["from"] for each in stage.all("COPY") if "from" in each.flags} <= earlier


def copied_sources(stages: list[Stage]) -> list[str]:
    copies = [each for stage in stages for each in stage.all("COPY") if "from" not in each.flags]
    return [source for each in copies for source in each.words[:-1]]


def test_everything_that_is_copied_is_here_and_reaches_the_build(stages: list[Stage]) -> None:
    sources = copied_sources(stages)

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if is_ignored(source, IGNORED)] == []


def test_everything_that_the_set_up_reads_is_copied(stages: list[Stage]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    read = [str(path.relative_to(ROOT)) for pattern in _MADE_FROM for path in ROOT.glob(pattern)]
    needed = [*read, project["readme"], *project["license-files"], "server/__init__.py"]

    folders = {*copied_sources(stages[:1])}

    assert [path for path in needed if path not in folders and path.split("/")[0] not in folders] == []
    assert [path for path in needed if is_ignored(path, IGNORED)] == []


@pytest.mark.parametrize(
    "path",
    ["weights/model.gguf", "data/hearth.sqlite", "deploy/secrets/metrics_key", ".git/config", "models.mine.yaml"],
)
def test_what_is_nobodys_business_stays_out_of_builds(path: str) -> None:
    assert is_ignored(path, IGNORED)


def test_nothing_is_fetched_but_by_package_managers(text: str) -> None:
    _, stages = parse_dockerfile(text)

    assert all(not stage.all("ADD") for stage in stages)
    assert not re.search(r"https?://|\bcurl\b|\bwget\b", re.sub(r"(?m)^\s*#.*$", "", text))


def test_package_lists_do_not_stay(stages: list[Stage]) -> None:
    installs = [each.rest for stage in stages for each in stage.all("RUN") if "apt-get" in each.rest]

    assert installs
    for command in installs:
        assert "apt-get update && apt-get install --yes --no-install-recommends" in command
        assert "rm -rf /var/lib/apt/lists/*" in command


def test_the_set_up_is_that_of_every_clone(stages: list[Stage]) -> None:
    [command] = [each.rest for each in stages[0].all("RUN") if "scripts/setup" in each.rest]
    options = re.findall(r" (--[\w-]+)", command.partition("scripts/setup")[2])
    asked = [sys.executable, ROOT / "scripts/setup", "--help"]
    known = subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    assert "--serving" in options
    assert all(option in known for option in options)


def test_the_compiler_is_the_one_that_figures_were_made_with() -> None:
    _, stages = parse_dockerfile((ROOT / "Dockerfile").read_text())

    assert set(DEBIAN_PACKAGES) <= set(stages[0].all("RUN")[0].words)


def test_gpu_architectures_are_an_argument() -> None:
    _, stages = parse_dockerfile((ROOT / "Dockerfile.cuda").read_text())

    [default] = [each.rest for each in stages[0].all("ARG") if each.rest.startswith("CUDA_ARCHITECTURES=")]
    assert re.fullmatch(r'CUDA_ARCHITECTURES="\d+(;\d+)*"', default)
    assert '--cuda-architectures "${CUDA_ARCHITECTURES}"' in (ROOT / "Dockerfile.cuda").read_text()


def test_nobody_is_root(stages: list[Stage]) -> None:
    run = stages[-1]
    user, group = run.only("USER").rest.split(":")

    assert user == group != "0"
    assert f"--uid {user}" in run.all("RUN")[0].rest
    behind = run.instructions[run.instructions.index(run.only("USER")) :]
    assert not {"RUN", "COPY"} & {each.name for each in behind}


def test_it_runs_a_command_that_exists(stages: list[Stage]) -> None:
    run = stages[-1]
    command, subcommand = *run.only("ENTRYPOINT").words, *run.only("CMD").words

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command in scripts
    assert subcommand in getattr(typer.main.get_command(cli), "commands")  # noqa: B009  # typer does not say its type


def test_its_settings_are_the_servers(stages: list[Stage]) -> None:
    environment = stages[-1].environment
    known = {*map(variable_of, server_settings()), CONFIG_VARIABLE}

    assert {name for name in environment if name.startswith("HEARTH_")} <= known
    assert environment["HEARTH_CONFIG"] in {each.words[-1] for each in stages[-1].all("COPY")}


def test_all_that_is_written_lies_in_volumes(stages: list[Stage]) -> None:
    run = stages[-1]
    environment = run.environment
    folders = [environment[name] for name in ("HEARTH_DATA_DIR", "HEARTH_WEIGHTS_DIR", "XDG_CACHE_HOME")]

    assert run.only("VOLUME").words == folders
    assert all(folder in run.all("RUN")[0].words for folder in folders)  # made, and given to the user


def test_its_port_is_the_one_that_is_asked_for_its_health(stages: list[Stage]) -> None:
    run = stages[-1]

    assert run.only("EXPOSE").rest == run.environment["HEARTH_PORT"]
    health = run.only("HEALTHCHECK")
    assert health.flags.keys() == {"interval", "timeout", "start-period", "retries"}
    program, script = parse_words(health.rest)
    assert (program, script) == ("python", "/opt/hearth/healthcheck.py")
    assert script in {each.words[-1] for each in run.all("COPY")}


def parse_words(rest: str) -> list[str]:
    return [*map(str, re.findall(r'"([^"]+)"', rest.removeprefix("CMD ")))]


def test_the_two_run_alike() -> None:
    """They differ in their bases, in their libraries, in what a driver wants to know, and in the models."""
    cpu, gpu = (parse_dockerfile((ROOT / name).read_text())[1][-1] for name in NAMES)

    def common(stage: Stage) -> list[str]:
        kept = [each for each in stage.instructions if each.name not in ("RUN", "ENV")]
        return [each.rest for each in kept if "models" not in each.rest]

    assert common(cpu) == common(gpu)
    assert cpu.environment.items() <= gpu.environment.items()
    assert all(name.startswith("NVIDIA_") for name in gpu.environment.keys() - cpu.environment.keys())


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    done = subprocess.run(["hadolint", Path(ROOT, name)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_a_key_is_made_before_the_image_serves(page: str) -> None:
    """It listens on all addresses, where `hearth serve` does not start without keys."""
    before, serves, _ = (ROOT / page).read_text().partition("--publish 127.0.0.1:8000:8000")

    assert serves
    assert "-v hearth-data:/var/lib/hearth/data hearth key create" in before.rpartition("docker build -t hearth")[2]
