"""How a run is controlled, on real devices."""

import time

import pytest

from lab.fleet import DeviceInfo
from tests.acceptance.conftest import World
from tests.integration.engine import ssh_clients, until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_check_says_what_it_would_do_and_does_nothing(world: World) -> None:
    names = ("openwrt1", "linux1")
    run = world.service.run(
        devices=world.ids(*names), type="custom", input={"command": "touch /root/touched"}, check=True
    )
    for name in names:
        row = run["rows"][name]
        assert row["status"] == "success", row
        assert row["reason"] == "check mode: would run: touch /root/touched"
        assert world.lab.exec(name, "test", "-e", "/root/touched")[0] != 0


def test_a_check_of_a_password_change_leaves_device_and_credential(world: World) -> None:
    secret = {"password": "checked-Only1", "confirm_password": "checked-Only1"}
    devices = world.ids("openwrt2")
    run = world.service.run(devices=devices, type="change_password", input=secret, check=True)
    assert run["status"] == "success", run["rows"]
    again = world.service.run(devices=devices, type="custom", input={"command": "id -un"})
    assert again["rows"]["openwrt2"]["stdout"] == "root\n", again["rows"]


def device(world: World, name: str) -> DeviceInfo:
    """What the lab tells about a device."""
    return world.lab.devices()[name]


def test_a_single_device_is_cancelled_while_its_command_runs_and_the_others_go_on(world: World) -> None:
    names = ("openwrt1", "openwrt2")
    command = {"command": "touch /tmp/began; sleep 6; touch /tmp/ended"}
    run = world.service.launch(devices=world.ids(*names), type="custom", input=command)
    for name in names:
        until(lambda name=name: world.lab.exec(name, "test", "-e", "/tmp/began")[0] == 0)  # type: ignore[misc]
    asked = time.monotonic()
    address = f"controller/batch-command/{run['id']}/"
    world.service.post(f"{address}cancel/", {"devices": world.ids("openwrt1")}, expect=202)
    until(lambda: world.service.get(address)["counts"]["cancelled"], 10)
    assert time.monotonic() - asked < 5
    assert ssh_clients(device(world, "openwrt1")) == []
    assert len(ssh_clients(device(world, "openwrt2"))) == 1
    rows = world.service.wait(run["id"])["rows"]
    assert (rows["openwrt1"]["status"], rows["openwrt2"]["status"]) == ("cancelled", "success"), rows
    assert "may have" in rows["openwrt1"]["reason"]
    assert world.lab.exec("openwrt2", "test", "-e", "/tmp/ended")[0] == 0
