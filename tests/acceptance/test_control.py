"""How a run is controlled, on real devices."""

import pytest

from tests.acceptance.conftest import World

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
