"""compose.yaml and what lies in deploy/ for it: everything named exists, and the parts fit each other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from server.config.server_section import ServerSettings
from tests.deploy.dockerfile import ROOT, Stage, parse_dockerfile

DRAIN_S: float = ServerSettings.model_fields["drain_s"].default


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


COMPOSE = load("compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.fixture(scope="module")
def image() -> Stage:
    return parse_dockerfile((ROOT / "Dockerfile").read_text())[1][-1]


def mounts(service: str) -> dict[str, str]:
    """Target to source."""
    return {target: source for source, target, *_ in (each.split(":") for each in SERVICES[service]["volumes"])}


def container_port(service: str) -> str:
    [published] = SERVICES[service]["ports"]
    return str(published).rpartition(":")[2]


def test_what_is_mounted_is_in_the_repository_or_a_volume() -> None:
    for service in SERVICES:
        for source in mounts(service).values():
            exists = (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
            assert exists, f"{service} mounts {source}"


def test_secrets_are_files_that_git_does_not_see() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert "/deploy/secrets/" in ignored
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"./deploy/secrets/{name}"
    assert {name for service in SERVICES.values() for name in service.get("secrets", ())} == set(COMPOSE["secrets"])


def test_no_port_is_open_to_other_machines() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service["ports"])


def test_nothing_runs_with_rights_that_it_does_not_need() -> None:
    for service in SERVICES.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES["hearth"]["read_only"] is SERVICES["prometheus"]["read_only"] is True


def test_the_server_has_a_volume_for_all_that_it_writes(image: Stage) -> None:
    assert set(image.only("VOLUME").words) <= set(mounts("hearth"))
    assert image.environment["HEARTH_CONFIG"] in mounts("hearth")
    assert container_port("hearth") == image.environment["HEARTH_PORT"]


def test_a_drain_comes_to_its_end() -> None:
    assert int(SERVICES["hearth"]["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_prometheus_asks_the_server_with_its_key() -> None:
    settings = load("deploy/prometheus/prometheus.yml")
    [job] = settings["scrape_configs"]

    assert job["static_configs"] == [{"targets": [f"hearth:{container_port('hearth')}"]}]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert "metrics_key" in SERVICES["prometheus"]["secrets"]
    assert mounts("prometheus")["/etc/prometheus"] == "./deploy/prometheus"


def test_the_rules_that_prometheus_reads_exist() -> None:
    for name in load("deploy/prometheus/prometheus.yml")["rule_files"]:
        assert load(f"deploy/prometheus/{name}")["groups"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    [source] = load("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    [provider] = load("deploy/grafana/provisioning/dashboards/hearth.yaml")["providers"]

    assert source["url"] == f"http://prometheus:{container_port('prometheus')}"
    assert mounts("grafana")[provider["options"]["path"]] == "./deploy/grafana"
    assert mounts("grafana")["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
    assert list((ROOT / "deploy/grafana").glob("*.json"))


def test_a_gpu_changes_the_image_the_models_and_nothing_else() -> None:
    [(name, service)] = load("deploy/compose.gpu.yaml")["services"].items()

    assert name == "hearth"
    assert service["build"] == {"context": ".", "dockerfile": "Dockerfile.cuda"}
    [volume] = service["volumes"]
    source, target, _ = volume.split(":")
    assert (ROOT / source).exists()
    assert target in mounts("hearth")
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
