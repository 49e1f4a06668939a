"""Devices that fail in every way the lab knows, among healthy ones: the right status, and a reason for people."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import pytest

from tests.acceptance.conftest import World

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]

SICK, WELL = "openwrt6", "openwrt3"


@contextmanager
def fault(world: World, kind: str, argument: str | None = None) -> Iterator[None]:
    """A fault of the sick device, for as long as the block lasts."""
    world.lab.fault(SICK, kind, argument)
    try:
        yield
    finally:
        world.lab.fault(SICK, "none")


# device → (fault, its argument; status; words of the reason)
FAULTS: Final[dict[str, tuple[str, str | None, str, str]]] = {
    "openwrt1": ("refuse", None, "unreachable", "refused"),
    "openwrt2": ("blackhole", None, "unreachable", "did not answer within 4 s"),
    "openwrt3": ("mute", None, "unreachable", "did not answer within 4 s"),
    "openwrt4": ("hang", None, "timed_out", "longer than 8 s"),
    "openwrt5": ("cut", "2", "failed", "lost"),
    "linux1": ("slow", "0.1", "success", ""),
}
HEALTHY: Final = ("openwrt6", "linux2")


def test_devices_with_all_kinds_of_faults_end_each_in_its_way_and_delay_no_healthy_one(world: World) -> None:
    for name, (kind, argument, _, _) in FAULTS.items():
        world.lab.fault(name, kind, argument)
    command = {"command": "hostname; sleep 3"}
    try:
        run = world.service.run(devices=world.ids(*FAULTS, *HEALTHY), type="custom", input=command)
    finally:
        for name in FAULTS:
            world.lab.fault(name, "none")
    rows = run["rows"]
    for name, (_, _, status, words) in FAULTS.items():
        row = rows[name]
        assert (row["status"], words in row["reason"]) == (status, True), row
        assert "ansible" not in row["reason"].lower()
    ended = {name: datetime.fromisoformat(row["finished"]) for name, row in rows.items()}
    for name in HEALTHY:
        assert rows[name]["status"] == "success", rows[name]
        assert ended[name] < ended["openwrt4"]  # the one that hangs, 8 s from its login on
    assert run["status"] == "partial"
    # From the first device on: the longest limit, and what a busy machine takes for eight logins.
    begun = min(datetime.fromisoformat(row["started"]) for row in rows.values())
    assert (max(ended.values()) - begun).total_seconds() < 8 + 12


def test_a_connection_cut_in_mid_command_is_no_success_and_not_called_unreachable(world: World) -> None:
    launched = world.service.launch(devices=world.ids(SICK), type="custom", input={"command": "touch /tmp/c; sleep 6"})
    until = time.monotonic() + 20
    while world.lab.exec(SICK, "ls", "/tmp/c")[0]:
        assert time.monotonic() < until
        time.sleep(0.1)
    with fault(world, "cut"):
        row = world.service.wait(launched["id"])["rows"][SICK]
    assert row["status"] == "failed", row
    assert row["rc"] is None
    assert "lost" in row["reason"], row["reason"]


def test_a_changed_host_key_stops_the_device_and_says_so(world: World) -> None:
    device = f"controller/device/{world.devices[SICK]['id']}/"
    address = f"{device}host-key/"
    command: dict[str, Any] = {"devices": world.ids(SICK, WELL), "type": "custom", "input": {"command": "hostname"}}
    boots = world.lab.devices()[SICK].boots
    with fault(world, "hostkey"):  # the lab boots the device again, as its server reads the key at its start
        world.lab.wait_until(SICK, "up", boots=boots + 1)
        rows = world.service.run(**command)["rows"]
        row, well = rows[SICK], rows[WELL]
        assert (row["status"], well["status"]) == ("unreachable", "success"), rows
        assert "host key" in row["reason"]
        assert "password" not in row["reason"]
        until = time.monotonic() + 20  # it is asked for its key once more when the run has ended
        while (marked := world.service.get(device))["host_key_state"] != "changed":
            assert time.monotonic() < until, marked
            time.sleep(0.1)
        assert marked["fingerprint"] == world.devices[SICK]["fingerprint"]
        seen = world.service.get("controller/audit/?action=device.host_key_changed")["results"][0]
        assert (seen["object_name"], seen["door"]) == (SICK, "worker")
        assert seen["details"]["shown"] == marked["shown_fingerprint"] != marked["fingerprint"]
        assert world.service.http.post(address, json={}).status_code == 409
        accepted = world.service.post(address, {"fingerprint": marked["shown_fingerprint"]})
        assert accepted["host_key"] == world.lab.devices()[SICK].hostkey
        assert world.service.run(**command)["status"] == "success"
    world.lab.wait_until(SICK, "up", boots=boots + 2)
    world.service.post(address, {"replace": True})


def test_a_wrong_password_is_unreachable_and_a_second_credential_is_tried(world: World) -> None:
    device = world.devices[SICK]
    wrong = world.service.post(
        "controller/credential/",
        {"organization": world.organization, "name": "wrong", "username": "root", "password": "not-this-one"},
    )["id"]
    address = f"controller/device/{device['id']}/"
    for credentials, status in (([wrong], "unreachable"), ([wrong, *device["credentials"]], "success")):
        assert world.service.http.patch(address, json={"credentials": credentials}).is_success
        row = world.service.run(devices=[device["id"]], type="custom", input={"command": "id"})["rows"][SICK]
        assert row["status"] == status, row
    world.service.http.patch(address, json={"credentials": device["credentials"]})


def test_a_device_that_never_comes_back_from_a_reboot_has_failed(world: World) -> None:
    boots = world.lab.devices()[SICK].boots
    with fault(world, "noreturn"):
        rows = world.service.run(devices=world.ids(SICK, WELL), type="reboot")["rows"]
    row, well = rows[SICK], rows[WELL]
    assert well["status"] == "success", well
    assert datetime.fromisoformat(well["finished"]) < datetime.fromisoformat(row["finished"])  # by its 25 s
    world.lab.power(SICK, "on")
    world.lab.wait_until(SICK, "up", boots=boots + 1)
    assert row["status"] == "failed", row
    assert "did not come back" in row["reason"]


def test_a_full_disk_fails_a_password_change_and_the_old_one_stays(world: World) -> None:
    password = {"password": "never-There-1", "confirm_password": "never-There-1"}
    world.lab.exec(SICK, "rm", "-f", "/etc/shadow-")  # an old backup that passwd removes first would make room
    with fault(world, "diskfull"):
        rows = world.service.run(devices=world.ids(SICK, WELL), type="change_password", input=password)["rows"]
    row = rows[SICK]
    assert (row["status"], rows[WELL]["status"]) == ("failed", "success"), rows
    assert row["reason"]
    assert world.service.run(devices=world.ids(SICK), type="custom", input={"command": "id"})["status"] == "success"


def test_a_device_that_is_not_enrolled_is_not_contacted(world: World) -> None:
    address = f"controller/device/{world.devices[SICK]['id']}/"
    world.service.http.patch(address, json={"host_key": ""})
    row = world.service.run(devices=world.ids(SICK), type="custom", input={"command": "id"})["rows"][SICK]
    assert (row["status"], "host key" in row["reason"]) == ("unreachable", True), row
    assert world.service.post(f"{address}host-key/", {"accept": True})["host_key"] == world.lab.devices()[SICK].hostkey


def test_much_output_is_cut_head_and_tail_and_never_dropped(world: World) -> None:
    command = "echo HEAD; head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; echo TAIL"
    row = world.service.run(devices=world.ids(SICK), type="custom", input={"command": command})["rows"][SICK]
    assert (row["status"], row["truncated"], row["bytes_total"]) == ("success", True, 3_000_011), row["reason"]
    assert row["stdout"].startswith("HEAD")
    assert row["stdout"].endswith("TAIL\n")
