"""Devices of a slice as Ansible and ssh read them."""

import json
from typing import Any

import pytest

from inventory_plugins.orchestrator import read_slice
from orchestrator.inventory import Login, Target, group_names, host_names, inventory, known_hosts

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0iG0cLr2i9"
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ=="


def target(name: str = "device-1", **values: Any) -> Target:
    """A device with a password."""
    known: dict[str, Any] = {"address": "127.0.0.1", "port": 2022, "platform": "openwrt", "host_key": ED25519}
    login = {"username": "root", "password": "secret-1"} | values.pop("login", {})
    return Target(host_name=name, login=Login(**login), **(known | values))


def variables(device: Target, connect_timeout: float = 10.0) -> dict[str, Any]:
    """What Ansible is told about the device."""
    found: dict[str, Any] = inventory([device], connect_timeout=connect_timeout)["hosts"][device.host_name]["vars"]
    return found


def test_a_device_is_a_host_in_the_group_of_its_platform() -> None:
    document = inventory([target(), target("device-2", platform="linux")], connect_timeout=1)
    assert document["plugin"] == "orchestrator"
    assert {name: host["groups"] for name, host in document["hosts"].items()} == {
        "device-1": ["openwrt"], "device-2": ["linux"],
    }  # fmt: skip


def test_values_are_passed_on_as_they_are() -> None:
    nasty = "{{ lookup('pipe','id') }} \"'\\ $(id)"
    found = variables(target(login={"password": nasty, "username": nasty}, address=nasty))
    assert (found["ansible_password"], found["ansible_user"], found["ansible_host"]) == (nasty, nasty, nasty)
    assert json.loads(json.dumps(found)) == found


def test_what_is_not_given_is_not_in_the_inventory() -> None:
    found = variables(target(login={"password": "", "private_key": "KEY"}))
    assert found["ansible_private_key"] == "KEY"
    assert not found.keys() & {"ansible_password", "ansible_private_key_passphrase", "ansible_become_password"}


@pytest.mark.parametrize(("become", "expected"), [("", "secret-1"), ("for-sudo", "for-sudo")])
def test_sudo_gets_its_own_password_or_the_logins(become: str, expected: str) -> None:
    assert variables(target(login={"become_password": become}))["ansible_become_password"] == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.2, 1), (1.0, 1), (2.5, 3), (10, 10)])
def test_a_time_limit_is_whole_seconds_and_never_none(seconds: float, expected: int) -> None:
    assert variables(target(), seconds)["ansible_ssh_timeout"] == expected


def test_only_the_pinned_kinds_of_keys_are_negotiated() -> None:
    found = variables(target(host_key=f"{RSA} a comment\n{ED25519}\n{RSA}\nssh-dss AAAA\nnonsense"))
    assert found["orchestrator_host_key_algorithms"] == "rsa-sha2-512,rsa-sha2-256,ssh-ed25519"


def test_a_key_is_known_under_the_services_name_of_the_device_only() -> None:
    devices = [target(host_key=f"{ED25519} comment\n{RSA}"), target("device-2", host_key="")]
    assert known_hosts(devices) == f"device-1 {ED25519}\ndevice-1 {RSA}\n"


@pytest.mark.parametrize(
    "key", ["", "nonsense", "ssh-ed25519", "ssh-ed25519 A!", "* ssh-ed25519 AAAA", "@cert-authority * ssh-rsa AAAA",
            "ssh-dss AAAA", "ssh-ed25519 AAAA\0", "{{ x }} AAAA"],
)  # fmt: skip
def test_what_is_no_key_pins_nothing(key: str) -> None:
    assert known_hosts([target(host_key=key)]) == ""


def test_a_representation_shows_no_secret() -> None:
    login = {"password": "S1-x", "private_key": "S2-x", "passphrase": "S3-x", "become_password": "S4-x"}
    shown = repr(target(login=login))
    assert not any(secret in shown for secret in login.values())
    assert "root" in shown


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"plugin": "other", "hosts": {}}', '{"plugin": "orchestrator"}', "\xff"]
)
def test_a_file_that_is_no_slice_is_refused(tmp_path: Any, text: str) -> None:
    from ansible.errors import AnsibleParserError

    path = tmp_path / "x.orchestrator.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(AnsibleParserError):
        read_slice(str(path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_slice_that_others_could_read_or_change_is_refused(tmp_path: Any, mode: int) -> None:
    from ansible.errors import AnsibleParserError

    path = tmp_path / "x.orchestrator.json"
    path.write_text(json.dumps(inventory([target()], connect_timeout=1)))
    path.chmod(mode)
    with pytest.raises(AnsibleParserError, match="0600"):
        read_slice(str(path))
    path.chmod(0o600)
    assert list(read_slice(str(path))["hosts"]) == ["device-1"]


def test_groups_are_named_for_ansible() -> None:
    assert group_names(
        platform="openwrt", organization="North & Co", group="all", location="Küche-1", tags=["roof", "a b", "a-b"]
    ) == [
        "openwrt", "organization_North___Co", "group_all", "location_Küche_1", "platform_openwrt", "tag_roof",
        "tag_a_b",
    ]  # fmt: skip
    assert group_names(platform="linux") == ["linux", "platform_linux"]


def test_no_name_of_a_device_is_another_ones_or_means_something_to_a_playbook() -> None:
    ids = [f"{number:08x}{'0' * 24}" for number in range(16)]
    names = [
        "plain", "Router", "router", "R1", "r1", "r1_00000004", "x/../y", "-x", "日本", f"device-{ids[8]}", "all",
        "linux", "tag_web", "group_a", "organization_North", "a b",
    ]  # fmt: skip
    called = host_names(dict(zip(ids, names, strict=True)), {"tag_web", "group_a_0000000d"})
    assert [called[pk] for pk in ids] == [
        "plain", "Router_00000001", "router_00000002", "R1_00000003", f"device-{ids[4]}", f"device-{ids[5]}",
        "x_.._y", f"device-{ids[7]}", f"device-{ids[8]}", f"device-{ids[8]}_00000009", "all_0000000a", "linux_0000000b",
        "tag_web_0000000c", f"device-{ids[13]}", "organization_North_0000000e", "a_b",
    ]  # fmt: skip
    assert len(set(map(str.lower, called.values()))) == len(ids)
