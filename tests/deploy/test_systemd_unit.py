"""deploy/hearth.service: what it promises the server, and what systemd itself says of it where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from server.cli.exit_codes import ExitCode
from server.config.load import CONFIG_VARIABLE, server_settings, variable_of
from server.config.server_section import ServerSettings
from tests.deploy.dockerfile import ROOT

UNIT = ROOT / "deploy/hearth.service"
GPU = ROOT / "deploy/hearth-gpu.conf"
DRAIN_S: float = ServerSettings.model_fields["drain_s"].default

MOST_EXPOSED = 25
"""Tenths of what `systemd-analyze security` makes of it; 100 is a service without any bounds."""


def settings(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and line[0] not in "#["]
    return [(name, value) for name, _, value in pairs]


SETTINGS = settings(UNIT)


def only(name: str) -> str:
    [value] = [value for each, value in SETTINGS if each == name]
    return value


def test_it_runs_the_server_and_hears_from_it() -> None:
    assert only("ExecStart").endswith("/hearth serve")
    assert (only("Type"), only("NotifyAccess")) == ("notify", "main")
    assert float(only("WatchdogSec")) >= 10


def test_a_drain_comes_to_its_end_before_systemd_loses_patience() -> None:
    assert float(only("TimeoutStopSec")) > DRAIN_S
    assert only("KillMode") == "mixed"  # workers go on answering while the server drains


def test_a_wrong_configuration_is_not_tried_again() -> None:
    assert only("Restart") == "on-failure"
    assert int(only("RestartPreventExitStatus")) == ExitCode.WRONG_INPUT


def test_its_settings_are_the_servers_and_lie_in_its_folders() -> None:
    variables = dict(value.split("=", 1) for name, value in SETTINGS if name == "Environment")
    known = {*map(variable_of, server_settings()), CONFIG_VARIABLE, "XDG_CACHE_HOME"}

    assert set(variables) <= known
    assert only("StateDirectory") == only("CacheDirectory") == only("ConfigurationDirectory") == "hearth"
    assert variables["HEARTH_CONFIG"].startswith("/etc/hearth/")
    assert all(variables[name].startswith("/var/lib/hearth/") for name in ("HEARTH_DATA_DIR", "HEARTH_WEIGHTS_DIR"))
    assert variables["XDG_CACHE_HOME"] == "/var/cache"


def test_it_is_bounded() -> None:
    bounds = {
        **{"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes"},
        **{"CapabilityBoundingSet": "", "LimitNOFILE": "65536", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX"},
    }

    assert bounds.items() <= dict(SETTINGS).items()
    assert only("User") not in ("", "root")


def test_a_gpu_loosens_no_more_than_devices() -> None:
    assert {name for name, _ in settings(GPU)} == {"PrivateDevices", "PrivateUsers", "DeviceAllow", "LimitMEMLOCK"}
    assert all("nvidia" in value for name, value in settings(GPU) if name == "DeviceAllow")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit and its addition, with a program that exists here."""
    unit = tmp_path / "hearth.service"
    unit.write_text(UNIT.read_text().replace("/opt/hearth/.venv/bin/hearth", "/bin/true"))
    addition = tmp_path / "hearth.service.d"
    addition.mkdir()
    shutil.copy(GPU, addition)
    return unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_all_of_it(installed: Path) -> None:
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{installed.parent}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed)],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_little_that_is_exposed() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-200:] + done.stderr
