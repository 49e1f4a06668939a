"""The whole service and a lab of real devices, once for all acceptance tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab.client import Lab
from lab.fleet import DEFAULT_PASSWORD
from lab.requirements import missing_requirements
from tests.acceptance.service import Service, lab_directory, running


@dataclass(frozen=True)
class World:
    """A service whose organization ``organization`` holds all the lab's devices, registered by name."""

    service: Service
    lab: Lab
    organization: str
    devices: dict[str, Any]

    def ids(self, *names: str) -> list[str]:
        """The ids of these devices."""
        return [self.devices[name]["id"] for name in names]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Real devices: openwrt1 to openwrt6, linux1 and linux2."""
    if missing := missing_requirements():
        pytest.skip("no lab here; missing: " + ", ".join(missing))
    with Lab.start(directory=lab_directory(tmp_path_factory.mktemp("lab")), openwrt=6, linux=2) as started:
        yield started


@pytest.fixture(scope="session")
def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service with the lab's devices."""
    with running(
        tmp_path_factory.mktemp("service"),
        ORCHESTRATOR_CONNECT_TIMEOUT="4",
        ORCHESTRATOR_EXECUTION_TIMEOUT="8",
        ORCHESTRATOR_REBOOT_TIMEOUT="25",
        ORCHESTRATOR_LEASE_SECONDS="8",
        ORCHESTRATOR_WEBHOOK_NETWORKS="127.0.0.0/8",
    ) as service:
        organization = service.post("controller/organization/", {"name": "Lab"})["id"]
        devices = service.register(lab.devices(), organization=organization, password=DEFAULT_PASSWORD)
        yield World(service=service, lab=lab, organization=organization, devices=devices)
