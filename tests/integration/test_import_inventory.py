"""manage.py import_inventory, with real inventories that Ansible itself reads."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orchestrator import actions, inventory_source
from orchestrator.access import Role
from orchestrator.adoption import Draft, Login, Rules, adopt
from orchestrator.exceptions import InvalidFieldError, InventoryUnreadableError, NotPermittedError
from orchestrator.models import AuditEntry, Credential, CredentialSecrets, Device, DeviceGroup, Location, Organization
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.database]

CANARY = "a-Canary-Pa55"
HOSTS = """
[aps]
ap[01:03].example.org ansible_port=2222
[web]
web1 ansible_host=192.0.2.20 ansible_user=deploy ntp_server=192.0.2.1
[site_berlin]
web1
win1 ansible_connection=winrm
[prod:children]
web
aps
"""


@pytest.fixture
def home() -> Organization:
    """The organization that devices are imported into."""
    return factories.organization(name="Home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An inventory folder with group variables, one of them encrypted and used by a template."""
    (tmp_path / "password").write_text("of-the-Vault")
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "hosts.ini").write_text(HOSTS)
    encrypted = subprocess.run(
        [Path(sys.executable).parent / "ansible-vault", "encrypt_string", CANARY, "--name", "vault_password",
         "--vault-password-file", tmp_path / "password"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    (folder / "group_vars" / "web.yml").write_text(f'ansible_password: "{{{{ vault_password }}}}"\n{encrypted}\n')
    (folder / "group_vars" / "aps.yml").write_text("ansible_user: root\nansible_ssh_pass: other-Secret\n")
    return folder


def run(source: Path, *arguments: str) -> str:
    """What the command shows."""
    told = io.StringIO()
    call_command(
        "import_inventory", str(source), "--organization=Home", "--vault-password-file",
        str(source.parent / "password"),
        "--location-groups=site_*", "--openwrt-groups=ap*", *arguments, stdout=told, no_color=True,
    )  # fmt: skip
    assert CANARY not in told.getvalue()
    return told.getvalue()


def test_an_inventory_is_previewed_imported_and_from_then_on_the_same(home: Organization, source: Path) -> None:
    preview = run(source)
    assert 'device "web1": host: 192.0.2.20; port: 22; platform: linux; group: web; location: site_berlin' in preview
    assert 'Not imported: its connection is "winrm"; devices are reached by ssh. [win1]' in preview
    assert "The variable ntp_server has no place here. [web1]" in preview
    assert "Nothing was changed. Repeat it with --apply" in preview
    assert not Device.objects.exists()
    assert not Credential.objects.exists()

    applied = run(source, "--apply")
    assert [line for line in applied.splitlines() if line.startswith("+")] == [
        line for line in preview.splitlines() if line.startswith("+")
    ]
    web = Device.objects.get(name="web1")
    assert (web.organization, web.host, web.port, web.platform) == (home, "192.0.2.20", 22, "linux")
    assert (str(web.group), str(web.location), web.tags) == ("web", "site_berlin", ["prod"])
    [key] = web.credentials.all()
    assert (key.username, key.secrets()) == ("deploy", CredentialSecrets(password=CANARY))
    assert CANARY not in key.sealed
    aps = Device.objects.filter(group__name="aps")
    assert sorted(aps.values_list("name", "host", "port", "platform")) == [
        (f"ap0{n}.example.org", f"ap0{n}.example.org", 2222, "openwrt") for n in (1, 2, 3)
    ]
    assert len({row.credentials.get() for row in aps}) == 1  # one row for one login

    before = list(Device.objects.order_by("pk").values())
    assert "nothing to change; unchanged devices: 4." in run(source, "--apply")
    assert list(Device.objects.order_by("pk").values()) == before
    assert (DeviceGroup.objects.count(), Location.objects.count(), Credential.objects.count()) == (2, 1, 2)


def test_a_vault_that_stays_shut_costs_the_credential_only(home: Organization, source: Path) -> None:
    told = io.StringIO()
    call_command("import_inventory", str(source), "--organization=Home", "--apply", stdout=told, no_color=True)
    assert "No credential: ansible_password has no value, no vault password given opens it. [web1]" in told.getvalue()
    assert not Device.objects.get(name="web1").credentials.exists()
    encrypt = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", str(source / "group_vars" / "web.yml")]
    subprocess.run([*encrypt, "--vault-password-file", source.parent / "password"], check=True, capture_output=True)
    with pytest.raises(
        CommandError, match="no vault secrets found. A whole file is encrypted: give the vault's password"
    ):
        call_command("import_inventory", str(source), "--organization=Home")


def test_a_script_is_an_inventory_too_and_does_not_see_our_keys(
    home: Organization, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SECRET_KEYS", CANARY)
    script = tmp_path / "hosts.sh"
    meta = json.dumps({"_meta": {"hostvars": {"a": {"ansible_host": "192.0.2.9"}}}, "all": {"hosts": ["a"]}})
    script.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\necho '{meta}'\n")
    script.chmod(0o755)
    [host] = inventory_source.read(str(script), variables=Rules().variables)
    assert (host.name, host.values) == ("a", {"ansible_host": "192.0.2.9"})
    assert CANARY not in (tmp_path / "environment").read_text()


def test_a_file_of_a_stranger_runs_nothing(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    touch = f"{{{{ lookup('pipe', 'touch {tmp_path}/evaluated') }}}}"
    hosts.write_text(json.dumps({"all": {"hosts": {"a": {"ansible_host": touch}}}}))
    [host] = inventory_source.read(str(hosts), variables=Rules().variables, static=True)
    assert host.values == {"ansible_host": touch}
    assert adopt([host], Rules(key_files=False))[0] == []
    hosts.write_text(f"#!/bin/sh\ntouch {tmp_path}/evaluated\n")
    hosts.chmod(0o755)
    with pytest.raises(InventoryUnreadableError):
        inventory_source.read(str(hosts), variables=[], static=True)
    assert not (tmp_path / "evaluated").exists()


def test_what_ansible_can_not_read_is_told_in_its_words(home: Organization, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: [")
    with pytest.raises(CommandError, match=r"(?s)YAML|parse"):
        call_command("import_inventory", str(tmp_path / "hosts.yml"), "--organization=Home")
    with pytest.raises(CommandError, match='no organization "Hom"'):
        call_command("import_inventory", "localhost,", "--organization=Hom")


def draft(name: str, **said: Any) -> Draft:
    """A device of an inventory."""
    values: dict[str, Any] = {
        "host": "192.0.2.1", "port": None, "platform": "", "group": "", "location": "", "tags": (), "login": None,
    }  # fmt: skip
    return Draft(name=name, **values | said)


def login(password: str, username: str = "root") -> Login:
    """A user with a password."""
    return Login(username, CredentialSecrets(password=password))


def test_what_the_inventory_does_not_say_stays(home: Organization) -> None:
    group, place = factories.group(organization=home, name="by hand"), factories.location(organization=home)
    own = factories.credential(organization=home)
    row = factories.device(
        organization=home, name="a", host="192.0.2.1", port=2222, group=group, location=place, tags=["x"],
        credentials=[own], is_active=False,
    )  # fmt: skip
    report = actions.import_devices(organization=home, drafts=[draft("a")], apply=True)
    assert (report.changes, report.unchanged) == ([], 1)
    report = actions.import_devices(
        organization=home, drafts=[draft("a", host="192.0.2.2", tags=("y",), login=login("new-Secret"))], apply=True
    )
    assert [change.details for change in report.changes if change.kind == "device"] == [
        ("host: 192.0.2.1 → 192.0.2.2", "tags: x → x, y", 'credential: "root (imported)" is tried first')
    ]
    row.refresh_from_db()
    assert (row.host, row.port, row.group, row.location, row.tags, row.is_active) == (
        "192.0.2.2", 2222, group, place, ["x", "y"], False,
    )  # fmt: skip
    entries = {entry.action: entry for entry in AuditEntry.objects.all()}
    assert entries.keys() == {"credential.create", "device.change"}
    assert entries["device.change"].details == {
        "by": "import", "changes": {"host": ["192.0.2.1", "192.0.2.2"], "tags": [["x"], ["x", "y"]]},
        "credentials": ['credential: "root (imported)" is tried first'],
    }  # fmt: skip
    assert "new-Secret" not in str(entries["credential.create"].details)
    imported = Credential.objects.get(name="root (imported)")
    assert list(row.device_credentials.values_list("credential", "position")) == [(imported.pk, 0), (own.pk, 1)]


def test_a_login_that_is_known_gets_no_second_row_and_a_taken_name_is_left_alone(home: Organization) -> None:
    known = factories.credential(organization=home, password="known", name="all of them")
    factories.credential(organization=home, password="else", name="root (imported)")
    drafts = [draft("a", login=login("known")), draft("b", login=login("new")), draft("c", login=login("new"))]
    actions.import_devices(organization=home, drafts=drafts, apply=True)
    assert Device.objects.get(name="a").credentials.get() == known
    assert {Device.objects.get(name=name).credentials.get().name for name in "bc"} == {"root (imported 2)"}


def test_credentials_that_devices_have_can_be_left_and_one_can_stand_in(home: Organization) -> None:
    spare = factories.credential(organization=home)
    row = factories.device(organization=home, name="a", host="192.0.2.1")
    report = actions.import_devices(
        organization=home, drafts=[draft("a", login=login("x")), draft("b")], apply=True, keep_credentials=True,
        credential=spare,
    )  # fmt: skip
    assert row.credentials.count() == 1
    assert Device.objects.get(name="b").credentials.get() == spare
    assert [change.name for change in report.changes if change.kind == "device"] == ["b"]


@pytest.mark.parametrize(
    ("missing", "left"),
    [("keep", {"a": True, "b": True}), ("deactivate", {"a": False, "b": True}), ("delete", {"b": True})],
)
def test_nothing_is_removed_unless_asked(home: Organization, missing: str, left: dict[str, bool]) -> None:
    factories.device(organization=home, name="a")
    factories.device(name="foreign")
    report = actions.import_devices(
        organization=home, drafts=[draft("b")], apply=True, missing=actions.Missing(missing)
    )
    assert report.not_imported == ["a"]
    actions_of_a = AuditEntry.objects.filter(object_name="a").values_list("action", flat=True)
    assert list(actions_of_a) == {"keep": [], "deactivate": ["device.change"], "delete": ["device.delete"]}[missing]
    assert dict(Device.objects.filter(organization=home).values_list("name", "is_active")) == left
    assert Device.objects.filter(name="foreign").exists()


def test_only_administrators_import(home: Organization) -> None:
    with pytest.raises(NotPermittedError):
        actions.import_devices(
            organization=home, drafts=[], apply=False, actor=factories.user(organization=home, role=Role.OPERATOR)
        )
    with pytest.raises(InvalidFieldError, match="another organization"):
        actions.import_devices(organization=home, drafts=[], apply=False, credential=factories.credential())


def test_a_thousand_devices_need_the_same_queries_as_ten(home: Organization) -> None:
    needed = []
    for count in (10, 400):
        organization = factories.organization()
        drafts = [draft(f"ap-{n}", group=f"g{n % 3}", login=login("one")) for n in range(count)]
        with CaptureQueriesContext(connection) as captured:
            actions.import_devices(organization=organization, drafts=drafts, apply=True)
        needed.append(len(captured))
        again = actions.import_devices(organization=organization, drafts=drafts, apply=True)
        assert (again.changes, again.unchanged) == ([], count)
    assert needed[0] == needed[1] <= 20


def test_a_strangers_file_reaches_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, sent = tmp_path / "ours", tmp_path / "sent"
    for folder in (ours / "host_vars", ours / "other", sent):
        folder.mkdir(parents=True)
    (ours / "other" / "core.yml").write_text("ansible_password: Not-yours-1\n")
    (sent / "hosts.ini").write_text("../other/core ansible_host=192.0.2.1\nx/../../other/core\n")
    monkeypatch.chdir(ours)  # where Ansible looks for host_vars, too
    hosts = inventory_source.read(str(sent / "hosts.ini"), variables=Rules().variables, static=True)
    assert len(hosts) == 2
    assert "Not-yours" not in repr([(host.values, host.others) for host in hosts])


def test_a_strangers_file_takes_its_time_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts.ini").write_text("h[0:90000000] ansible_host=192.0.2.1\n")
    monkeypatch.setattr(inventory_source, "STATIC_SECONDS", 2.0)
    with pytest.raises(InventoryUnreadableError, match="longer than 2 seconds|can't read it"):
        inventory_source.read(str(tmp_path / "hosts.ini"), variables=[], static=True)
