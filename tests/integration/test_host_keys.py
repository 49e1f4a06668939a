"""Host keys of real devices: scanned, pinned, and never replaced in silence."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from lab.client import Lab
from orchestrator import actions, host_keys, planning
from orchestrator.exceptions import DeviceUnreachableError, HostKeyChangedError
from orchestrator.models import Device, Slice
from tests import factories
from tests.integration.engine import Engine
from tests.integration.test_recording import launch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.lab]

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0iG0cLr2i9iJ0iG0cLr2i9iJ0iG0cLr2i9iJ0iG0cL"


@pytest.fixture
def lab(engine_lab: Engine) -> Lab:
    """Real devices."""
    return engine_lab.lab


@pytest.fixture
def device(lab: Lab) -> Device:
    """A lab device that is not enrolled."""
    shown = lab.devices()["openwrt1"]
    return factories.device(name="openwrt1", host=shown.address, port=shown.port)


def test_a_scan_shows_the_key_of_the_device(lab: Lab, device: Device) -> None:
    assert host_keys.scan(device.host, device.port) == lab.devices()["openwrt1"].hostkey


def test_nobody_at_the_address_is_told(settings: Any) -> None:
    settings.CONNECT_TIMEOUT = 1.0
    with pytest.raises(DeviceUnreachableError):
        host_keys.scan("127.77.255.1", 9)


def test_another_key_is_pinned_only_on_purpose(lab: Lab, device: Device) -> None:
    Device.objects.filter(pk=device.pk).update(host_key=OTHER)
    device.refresh_from_db()
    boss = factories.superuser()
    with pytest.raises(HostKeyChangedError) as refused:
        actions.enrol(actor=boss, device=device)
    assert refused.value.extra["pinned"] != refused.value.extra["shown"]
    assert actions.enrol(actor=boss, device=device, replace=True).host_key == lab.devices()["openwrt1"].hostkey


@pytest.mark.parametrize("trust", [True, False])
def test_the_first_key_seen_is_trusted_only_if_the_setting_says_so(
    lab: Lab, device: Device, outbox: Any, settings: Any, trust: bool
) -> None:
    settings.TRUST_ON_FIRST_USE = trust
    run = launch(device.organization_id)
    plan = planning.plan(Slice.objects.select_related("mass_command").get(mass_command=run))
    device.refresh_from_db()
    assert device.host_key == (lab.devices()["openwrt1"].hostkey if trust else "")
    assert bool(plan.assignments) is trust


def test_the_command_shows_first_and_pins_when_told(lab: Lab, device: Device) -> None:
    shown = io.StringIO()
    call_command("enrol", "openwrt1", stdout=shown)
    device.refresh_from_db()
    assert device.host_key == ""
    assert "SHA256:" in shown.getvalue()
    call_command("enrol", "openwrt1", "--accept", stdout=io.StringIO())
    device.refresh_from_db()
    assert device.fingerprint in shown.getvalue()
    Device.objects.filter(pk=device.pk).update(host_key=OTHER)
    with pytest.raises(CommandError, match="need a look"):
        call_command("enrol", "openwrt1", "--accept", stdout=io.StringIO())
    assert Device.objects.get(pk=device.pk).host_key == OTHER
