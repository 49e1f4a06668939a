"""From an inventory of plain Ansible into the service, and from the service into plain Ansible."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.stack import BASE_DIR
from tests.acceptance.conftest import World

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]

PROGRAMS = Path(sys.executable).parent
PASSPHRASE = "opens-the-Key-1"


def test_an_inventory_is_imported_run_on_and_used_by_plain_ansible_again(world: World, tmp_path: Path) -> None:
    def call(*command: str | Path, **environment: str) -> str:
        done = subprocess.run(
            command, cwd=BASE_DIR, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSPHRASE not in done.stdout + done.stderr
        return done.stdout

    # what people have: a key with a passphrase, which only the vault knows, and hosts in groups
    key, vault = tmp_path / "key", tmp_path / "vault-password"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", key], check=True)
    vault.write_text("of-the-Vault")
    encrypt: list[str | Path] = [
        PROGRAMS / "ansible-vault",
        "encrypt_string",
        PASSPHRASE,
        "--vault-password-file",
        vault,
        "--name",
    ]
    secret = subprocess.run([*encrypt, "the_passphrase"], capture_output=True, text=True, check=True).stdout
    groups = tmp_path / "source" / "group_vars"
    groups.mkdir(parents=True)
    groups.joinpath("all.yml").write_text(
        f'ansible_user: root\nansible_private_key_file: {key}\n{secret}\n'
        'ansible_private_key_passphrase: "{{ the_passphrase }}"\n'
    )  # fmt: skip
    devices = {name: world.lab.devices()[name] for name in ("openwrt5", "linux2")}
    groups.with_name("hosts.ini").write_text(
        "".join(f"[{d.kind}]\n{name} ansible_host={d.address} ansible_port={d.port}\n" for name, d in devices.items())
    )
    for name, place in (("openwrt5", "/etc/dropbear"), ("linux2", "/root/.ssh")):
        public = key.with_suffix(".pub").read_text().strip()
        add = f"mkdir -p {place} && echo '{public}' >> {place}/authorized_keys && chmod -R go-rwx {place}"
        assert world.lab.exec(name, "sh", "-c", add)[0] == 0

    # into the service: imported, enrolled, run on
    service = world.service
    organization = service.post("controller/organization/", {"name": "Imported"})["id"]
    manage = (sys.executable, "manage.py")
    source = (
        "import_inventory",
        tmp_path / "source" / "hosts.ini",
        "--organization=Imported",
        "--openwrt-groups=openwrt",
    )
    told = call(*manage, *source, "--vault-password-file", vault, "--apply", **service.stack.environment)
    assert "create device: 2" in told
    call(*manage, "enrol", "--organization=Imported", "--accept", **service.stack.environment)
    run = service.run(organization=organization, type="custom", input={"command": "hostname"})
    assert {name: row["stdout"].strip() for name, row in run["rows"].items()} == {name: name for name in devices}, run

    # and from there into plain Ansible, which checks the host keys that were pinned
    configuration = {"plugin": "orchestrator", "url": service.stack.url, "organization": "Imported"}
    configuration["known_hosts"] = str(tmp_path / "keys of the fleet")
    fleet = tmp_path / "fleet.orchestrator.yml"
    fleet.write_text(json.dumps(configuration))
    play = tmp_path / "play.yml"
    task = {"ansible.builtin.raw": "hostname > /tmp/was-here", "changed_when": True}
    play.write_text(json.dumps([{"hosts": "group_openwrt:group_linux", "gather_facts": False, "tasks": [task]}]))
    plain = {
        "ORCHESTRATOR_TOKEN": service.http.headers["Authorization"].removeprefix("Bearer "),
        "ANSIBLE_INVENTORY_PLUGINS": str(BASE_DIR / "inventory_plugins"), "ANSIBLE_INVENTORY_ENABLED": "orchestrator",
        "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",  # an open connection is not checked again
    }  # fmt: skip
    (tmp_path / "ansible.cfg").touch()
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", PASSPHRASE, "-N", "", "-f", key], check=True)
    command: tuple[str | Path, ...] = (PROGRAMS / "ansible-playbook", "-i", fleet, play, "--private-key", key)
    recap = call(*command, **plain).split("PLAY RECAP")[1]
    assert recap.count("ok=1    changed=1    unreachable=0    failed=0") == 2, recap
    for name in devices:
        assert world.lab.exec(name, "cat", "/tmp/was-here")[1].strip() == name

    # a device that shows another key is not logged in to
    row = service.get("controller/device/", organization=organization, name="linux2")["results"][0]
    reply = service.http.patch(f"controller/device/{row['id']}/", json={"host_key": devices["openwrt5"].hostkey})
    assert reply.is_success, reply.text
    refused = subprocess.run(command, env=os.environ | plain, capture_output=True, text=True, check=False, timeout=90)
    assert "Host key verification failed" in refused.stdout, refused.stdout
    assert "unreachable=1" in refused.stdout
