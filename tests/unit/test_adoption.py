"""What the variables and groups of an Ansible inventory mean here."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orchestrator.adoption import Draft, Findings, Rules, SourceHost, adopt

KEY = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def adopted(
    *, groups: dict[str, int] | None = None, unread: dict[str, str] | None = None, others: tuple[str, ...] = (),
    rules: Rules | None = None, name: str = "web1", **values: Any,
) -> tuple[Draft | None, list[str]]:  # fmt: skip
    """The device of one host, if it can be one, and what was found."""
    host = SourceHost(name, values, unread or {}, others, groups or {})
    drafts, findings = adopt([host], rules or Rules())
    assert all(hosts == [name] for hosts in findings.hosts.values())
    return next(iter(drafts), None), list(findings.hosts)


def test_a_host_is_a_device_with_its_login() -> None:
    draft, found = adopted(
        ansible_host="192.0.2.1", ansible_port=2222, ansible_user="deploy", ansible_password="a-Canary-1",
        ansible_become_pass="a-Canary-2", ansible_become=True, orchestrator_platform="OpenWrt",
    )  # fmt: skip
    assert draft is not None
    assert (draft.host, draft.port, draft.platform, found) == ("192.0.2.1", 2222, "openwrt", [])
    assert draft.login is not None
    secrets = draft.login.secrets
    assert (draft.login.username, secrets.password, secrets.become_password) == ("deploy", "a-Canary-1", "a-Canary-2")
    assert "a-Canary" not in repr(draft)


def test_of_several_names_for_one_thing_the_last_counts_as_in_ansible() -> None:
    draft, _ = adopted(
        ansible_ssh_host="b", ansible_host="a", ansible_password="1", ansible_ssh_password="3", ansible_ssh_pass="2"
    )
    assert draft is not None
    assert draft.login is not None
    assert (draft.host, draft.login.secrets.password) == ("b", "3")


def test_what_is_not_said_stays_unsaid() -> None:
    draft, found = adopted()
    assert draft == Draft("web1", "web1", None, "", "", "", (), None)
    assert found == ["No credential: there is neither a password nor a private key for it"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ansible_connection": "community.general.winrm"}, 'its connection is "winrm"'),
        ({"ansible_connection": "local"}, 'its connection is "local"'),
        ({"ansible_host": "-oProxyCommand=id"}, "its host is not valid"),
        ({"ansible_host": "{{ nothing }}"}, "its host is not valid"),
        ({"ansible_port": 70_000}, "its port is not valid"),
        ({"ansible_port": "ssh"}, "its port is not valid"),
        ({"name": "a\nb", "ansible_host": "a"}, "its name is not valid"),
        ({"name": "x" * 129, "ansible_host": "a"}, "its name is not valid"),
        ({"unread": {"ansible_host": "its template can't be evaluated"}}, "ansible_host has no value"),
    ],
)
def test_what_can_be_no_device_is_told(values: dict[str, Any], told: str) -> None:
    draft, found = adopted(**values)
    assert draft is None
    assert len(found) == 1
    assert found[0].startswith("Not imported: ")
    assert told in found[0]


@pytest.mark.parametrize("connection", ["ssh", "smart", "ansible.builtin.ssh", "paramiko", "ansible.netcommon.libssh"])
def test_every_connection_over_ssh_will_do(connection: str) -> None:
    assert adopted(ansible_connection=connection)[0] is not None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ansible_password": "a\x07Canary"}, "can't be entered"),
        ({"ansible_password": "a-Canary", "ansible_user": "{{ x }}"}, "Enter a user name"),
        ({"ansible_private_key": "a-Canary"}, "no private key"),
        ({"ansible_private_key_file": "/nowhere/a-key"}, "/nowhere/a-key can't be read: No such file"),
        ({"unread": {"ansible_password": "no vault password given opens it"}}, "no vault password given opens it"),
        ({"ansible_password": "x", "unread": {"ansible_become_pass": "no"}}, "ansible_become_pass has no value"),
    ],
)
def test_a_login_that_can_not_be_is_told_without_it(values: dict[str, Any], told: str) -> None:
    draft, found = adopted(**values)
    assert draft is not None
    assert draft.login is None
    assert any(told in sentence for sentence in found), found
    assert "Canary" not in "".join(found)


def test_private_keys_are_read_from_their_files_unless_a_stranger_names_them(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    draft, found = adopted(ansible_ssh_private_key_file=str(path), ansible_user="root")
    assert draft is not None
    assert draft.login is not None
    assert (draft.login.secrets.private_key, found) == (KEY, [])
    draft, found = adopted(ansible_ssh_private_key_file=str(path), rules=Rules(key_files=False))
    assert draft is not None
    assert draft.login is None
    assert "is a file that is not here" in found[0]


def test_a_key_for_all_is_for_hosts_without_their_own() -> None:
    rules = Rules(private_key=KEY, username="admin")
    bare, found = adopted(rules=rules)
    own, _ = adopted(rules=rules, ansible_password="x", ansible_user="me")
    assert bare is not None
    assert bare.login is not None
    assert (bare.login.username, bare.login.secrets.private_key) == ("admin", KEY)
    assert found == ['There is no ansible_user: the user name is "admin"']
    assert own is not None
    assert own.login is not None
    assert (own.login.username, own.login.secrets.private_key) == ("me", "")


def test_the_deepest_groups_are_the_place_and_the_group_and_the_rest_are_tags() -> None:
    rules = Rules(location_groups=("site_*", "country_*"), openwrt_groups=("ap*",))
    groups = {"country_de": 1, "site_berlin": 2, "prod": 1, "aps": 2, "blue": 2}
    draft, found = adopted(groups=groups, rules=rules, ansible_password="x", ansible_user="root")
    assert draft is not None
    assert (draft.location, draft.group, draft.platform) == ("site_berlin", "aps", "openwrt")
    assert draft.tags == ("blue", "country_de", "prod")
    assert found == [
        'A device has one location: "site_berlin" is it, and these became tags: country_de',
        'A device has one device group: "aps" is it, and these became tags: blue, prod',
    ]


def test_only_groups_of_the_pattern_are_device_groups() -> None:
    draft, _ = adopted(groups={"prod": 3, "role_web": 1}, rules=Rules(device_groups=("role_*",)))
    assert draft is not None
    assert (draft.group, draft.tags) == ("role_web", ("prod",))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ansible_become_method": "doas"}, 'ansible_become_method is "doas"'),
        ({"ansible_become_user": "oracle"}, 'ansible_become_user is "oracle"'),
        ({"ansible_become": "no"}, "ansible_become is off"),
        ({"orchestrator_platform": "ios"}, 'orchestrator_platform is "ios"'),
        ({"others": ("ntp_server",)}, "The variable ntp_server has no place here"),
        ({"others": ("ansible_ssh_common_args",)}, "The variable ansible_ssh_common_args has no place here"),
    ],
)
def test_what_has_no_place_here_is_told(values: dict[str, Any], told: str) -> None:
    draft, found = adopted(ansible_password="x", ansible_user="root", **values)
    assert draft is not None
    assert [told in sentence for sentence in found] == [True]


def test_what_is_needless_here_is_not_worth_a_word() -> None:
    assert adopted(ansible_password="x", ansible_user="root", others=("ansible_python_interpreter",))[1] == []


def test_findings_name_each_sentence_once() -> None:
    findings = Findings()
    for host in ("a", "b"):
        findings.add("same", host)
    assert findings.hosts == {"same": ["a", "b"]}
