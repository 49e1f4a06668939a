"""The fleet as CRUD: organizations, locations, groups, credentials and devices."""

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.access import Role
from orchestrator.models import Credential, Device
from tests import factories
from tests.integration.api_addresses import (
    CREDENTIALS,
    DEVICES,
    GROUPS,
    LOCATIONS,
    MISSING,
    ORGANIZATIONS,
    RUNS,
    case,
    finish,
    launch,
    names,
    post,
)

pytestmark = [pytest.mark.django_db, pytest.mark.database]

OWNED = [LOCATIONS, GROUPS, CREDENTIALS, DEVICES]


def _body(address: str, organization: Any, **fields: Any) -> dict[str, Any]:
    """What makes a row at this address."""
    own = {} if address == ORGANIZATIONS else {"organization": str(organization.pk)}
    more = {CREDENTIALS: {"username": "root", "password": "s3cr3t-Login"}, DEVICES: {"host": "192.0.2.1"}}
    return {"name": "a name", **own, **more.get(address, {}), **fields}


@pytest.fixture
def home() -> Any:
    """The organization of the client."""
    return factories.organization(name="home")


@pytest.fixture
def admin(api: Any, home: Any) -> Any:
    """An administrator's."""
    return api(factories.user(organization=home, role=Role.ADMINISTRATOR))


@pytest.fixture
def root(api: Any) -> Any:
    """A superuser's admin."""
    return api(factories.superuser())


def test_an_administrator_makes_reads_changes_and_deletes(admin: Any, home: Any) -> None:
    for address in OWNED:
        made = admin.post(address, _body(address, home))
        assert made.status_code == 201, made.content
        row = f"{address}{made.json()['id']}/"
        assert admin.get(row).json() == made.json()
        assert admin.patch(row, {"name": "new"}).json()["name"] == "new"
        assert admin.put(row, _body(address, home, name="newer")).json()["name"] == "newer"
        assert names(admin.get(address)) == ["newer"]
        deleted = admin.delete(row)
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert admin.get(row).status_code == 404


def test_what_was_read_can_be_sent_back(admin: Any, home: Any) -> None:
    for address in OWNED:
        shown = admin.post(address, _body(address, home)).json()
        reply = admin.put(f"{address}{shown['id']}/", shown)
        assert reply.status_code == 200, reply.content
        assert {**reply.json(), "modified": ""} == {**shown, "modified": ""}


def test_organizations_are_made_and_deleted_by_superusers(admin: Any, root: Any, home: Any) -> None:
    assert admin.post(ORGANIZATIONS, {"name": "another"}).status_code == 403
    made = root.post(ORGANIZATIONS, {"name": "another", "allowed_types": ["reboot"]})
    assert (made.status_code, made.json()["allowed_types"], made.json()["is_active"]) == (201, ["reboot"], True)
    assert admin.delete(f"{ORGANIZATIONS}{home.pk}/").status_code == 403
    assert root.delete(f"{ORGANIZATIONS}{made.json()['id']}/").status_code == 204


@pytest.mark.usefixtures("outbox")
def test_an_organization_is_not_deleted_while_a_run_goes_on_there(root: Any, home: Any) -> None:
    devices = [factories.device(organization=home), factories.device()]
    runs = [launch(root, organization=str(home.pk)), launch(root, devices=[str(row.pk) for row in devices])]
    for run in runs:
        reply = root.delete(f"{ORGANIZATIONS}{home.pk}/")
        assert (reply.status_code, reply.json()["code"]) == (409, "still_active")
        finish(run["id"])
    assert root.delete(f"{ORGANIZATIONS}{home.pk}/").status_code == 204
    assert [root.get(f"{RUNS}{run['id']}/").status_code for run in runs] == [404, 200]


@pytest.mark.parametrize("address", [ORGANIZATIONS, *OWNED])
def test_names_are_unique_within_their_organization(root: Any, home: Any, address: str) -> None:
    assert root.post(address, _body(address, home)).status_code == 201
    again = root.post(address, _body(address, home))
    assert (again.status_code, list(again.json())) == (400, ["name"])
    other = root.post(address, _body(address, factories.organization(), name="b"))
    assert root.patch(f"{address}{other.json()['id']}/", {"name": "a name"}).status_code == (
        400 if address == ORGANIZATIONS else 200
    )


NAMES: list[Any] = [None, "", "  ", 1, True, [], {}, "x" * 129, "a\x00b", "a\nb", "a\x7fb", "\ud800"]


@pytest.mark.parametrize("value", NAMES, ids=case)
@pytest.mark.parametrize("address", [ORGANIZATIONS, *OWNED])
def test_a_bad_name_is_refused(root: Any, home: Any, address: str, value: Any) -> None:
    reply = post(root, address, _body(address, home, name=value))
    assert (reply.status_code, list(reply.json())) == (400, ["name"])


@pytest.mark.parametrize("address", OWNED)
@pytest.mark.parametrize("kind", ["foreign", "missing"])
def test_nothing_is_made_in_an_organization_that_one_does_not_see(admin: Any, address: str, kind: str) -> None:
    organization = factories.organization()
    body = _body(address, organization)
    if kind == "missing":
        body["organization"] = MISSING
    reply = admin.post(address, body)
    assert (reply.status_code, list(reply.json())) == (400, ["organization"])


@pytest.mark.parametrize("address", OWNED)
@pytest.mark.parametrize("role", [Role.OPERATOR, Role.VIEWER])
def test_others_than_administrators_only_read(api: Any, admin: Any, home: Any, address: str, role: Role) -> None:
    made = admin.post(address, _body(address, home)).json()
    other = api(factories.user(organization=home, role=role))
    row = f"{address}{made['id']}/"
    assert other.get(row).json() == made
    assert other.post(address, _body(address, home, name="b")).status_code == 403
    for method in ("put", "patch", "delete"):
        assert getattr(other, method)(row, _body(address, home)).status_code == 403


@pytest.mark.parametrize("address", OWNED)
def test_an_administrator_of_two_organizations_keeps_them_apart(api: Any, home: Any, address: str) -> None:
    user = factories.user(organization=home, role=Role.ADMINISTRATOR)
    read_only = factories.organization()
    user.memberships.create(organization=read_only, role=Role.VIEWER)
    reply = api(user).post(address, _body(address, read_only))
    assert (reply.status_code, reply.json()["code"]) == (403, "permission_denied")


# ---------------------------------------------------------------- credentials


@pytest.fixture
def key() -> str:
    """A private key."""
    encoding, text = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    return Ed25519PrivateKey.generate().private_bytes(encoding, text, serialization.NoEncryption()).decode()


def test_secrets_are_write_only(admin: Any, home: Any, key: str) -> None:
    body = _body(CREDENTIALS, home, private_key=key, become_password="bec0me-Me")
    made = admin.post(CREDENTIALS, body)
    address = f"{CREDENTIALS}{made.json()['id']}/"
    replies = [made, admin.get(address), admin.get(CREDENTIALS), admin.patch(address, {"name": "b"})]
    for reply in replies:
        assert reply.status_code in (200, 201)
        for secret in (b"s3cr3t", b"bec0me", b"PRIVATE KEY"):
            assert secret not in reply.content
    assert set(made.json()) == {
        "id", "organization", "name", "username", "source", "references", "has_password", "has_private_key",
        "created", "modified",
    }  # fmt: skip
    assert (made.json()["has_password"], made.json()["has_private_key"]) == (True, True)
    row = Credential.objects.get()
    assert "s3cr3t" not in row.sealed
    assert (row.secrets().password, row.secrets().become_password) == ("s3cr3t-Login", "bec0me-Me")


def test_a_secret_that_is_not_sent_stays(admin: Any, home: Any, key: str) -> None:
    made = admin.post(CREDENTIALS, _body(CREDENTIALS, home)).json()
    address = f"{CREDENTIALS}{made['id']}/"
    admin.patch(address, {"private_key": key})
    secrets = Credential.objects.get().secrets()
    assert (secrets.password, secrets.private_key.strip()) == ("s3cr3t-Login", key.strip())
    assert admin.patch(address, {"password": ""}).json()["has_password"] is False


def test_a_credential_needs_a_password_or_a_key(admin: Any, home: Any) -> None:
    assert admin.post(CREDENTIALS, _body(CREDENTIALS, home, password="")).status_code == 400
    made = admin.post(CREDENTIALS, _body(CREDENTIALS, home)).json()
    assert list(admin.patch(f"{CREDENTIALS}{made['id']}/", {"password": ""}).json()) == ["password"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("username", "-oProxyCommand=x"), ("username", "a b"), ("username", ""), ("username", "ro\x00ot"), ("username", 1),
     ("password", "a\nb"), ("password", 1), ("password", None), ("password", "x" * 1025), ("private_key", "no key"),
     ("private_key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"),
     ("passphrase", "a\x00b"), ("become_password", ["x"]), ("token", "x")],
    ids=case,
)  # fmt: skip
def test_a_bad_credential_names_the_field_and_repeats_no_secret(admin: Any, home: Any, field: str, value: Any) -> None:
    reply = admin.post(CREDENTIALS, _body(CREDENTIALS, home, **{field: value}))
    assert (reply.status_code, list(reply.json())) == (400, [field])
    assert b"s3cr3t" not in reply.content
    assert not Credential.objects.exists()


def test_a_credential_stays_in_its_organization(root: Any, home: Any) -> None:
    made = root.post(CREDENTIALS, _body(CREDENTIALS, home)).json()
    reply = root.patch(f"{CREDENTIALS}{made['id']}/", {"organization": str(factories.organization().pk)})
    assert (reply.status_code, list(reply.json())) == (400, ["organization"])


# ---------------------------------------------------------------- devices


def test_credentials_of_a_device_keep_their_order(admin: Any, home: Any) -> None:
    rows = [str(factories.credential(organization=home).pk) for _ in range(3)]
    order = [rows[2], rows[0], rows[1]]
    made = admin.post(DEVICES, _body(DEVICES, home, credentials=order)).json()
    address = f"{DEVICES}{made['id']}/"
    assert made["credentials"] == admin.get(address).json()["credentials"] == order
    assert admin.patch(address, {"credentials": order[::-1]}).json()["credentials"] == order[::-1]
    assert admin.patch(address, {"name": "b"}).json()["credentials"] == order[::-1]
    assert admin.get(DEVICES).json()["results"][0]["credentials"] == order[::-1]


def test_a_device_has_sensible_defaults(admin: Any, home: Any) -> None:
    made = admin.post(DEVICES, _body(DEVICES, home)).json()
    assert {name: made[name] for name in ("port", "platform", "is_active", "tags", "host_key", "credentials")} == {
        "port": 22, "platform": "linux", "is_active": True, "tags": [], "host_key": "", "credentials": [],
    }  # fmt: skip


@pytest.mark.parametrize("field", ["group", "location", "credentials"])
def test_what_belongs_to_another_organization_is_refused(root: Any, admin: Any, home: Any, field: str) -> None:
    other = factories.organization()
    row = getattr(factories, field.removesuffix("s"))(organization=other)
    value = [str(row.pk)] if field == "credentials" else str(row.pk)
    for who in (root, admin):
        reply = who.post(DEVICES, {**_body(DEVICES, home), field: value})
        assert (reply.status_code, list(reply.json())) == (400, [field])
    device = factories.device(organization=home)
    for who in (root, admin):
        assert list(who.patch(f"{DEVICES}{device.pk}/", {field: value}).json()) == [field]


def test_a_device_that_moves_leaves_what_is_not_of_its_new_organization(root: Any, home: Any) -> None:
    device = factories.device(organization=home)
    other = factories.organization()
    reply = root.patch(f"{DEVICES}{device.pk}/", {"organization": str(other.pk)})
    assert (reply.status_code, list(reply.json())) == (400, ["credentials"])
    reply = root.patch(f"{DEVICES}{device.pk}/", {"organization": str(other.pk), "credentials": []})
    assert reply.json()["organization"] == str(other.pk)


BAD: dict[str, list[Any]] = {
    "host": ["", None, 1, "a b", "-oProxyCommand=x", "1.2.3.999", "ho_st;rm", "x" * 254, "fe80::1%eth0", "{{ x }}",
             "é"],
    "port": [0, -1, 65536, "22", 22.5, True, None, [], 10**30],
    "platform": ["", "windows", "Linux", None, 1, []],
    "is_active": ["true", 1, None, []],
    "tags": ["a", None, {}, [1], [""], ["x" * 65], ["a\x00"], ["t"] * 65],
    "host_key": ["x", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-dss AAAA", 1, None, "ssh-ed25519 AAAA extra"],
    "credentials": ["x", None, {}, [1], ["x"], [MISSING], [MISSING] * 5_000],
    "group": ["x", 1, [], MISSING],
    "location": ["x", {}, MISSING],
    "organization": [None, "", "x", 1, [], MISSING],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(k, v) for k, values in BAD.items() for v in values], ids=case)
def test_a_bad_device_names_the_field(admin: Any, home: Any, field: str, value: Any) -> None:
    reply = admin.post(DEVICES, {**_body(DEVICES, home), field: value})
    assert (reply.status_code, list(reply.json())) == (400, [field])
    assert not Device.objects.exists()


def test_a_credential_named_twice_is_refused(admin: Any, home: Any) -> None:
    row = str(factories.credential(organization=home).pk)
    assert list(admin.post(DEVICES, _body(DEVICES, home, credentials=[row, row])).json()) == ["credentials"]


@pytest.mark.parametrize("host", ["router-1.example.com", "192.0.2.1", "2001:db8::1", "localhost", "a_b.example"])
def test_a_host_is_a_name_or_an_address(admin: Any, home: Any, host: str) -> None:
    assert admin.post(DEVICES, _body(DEVICES, home, host=host)).json()["host"] == host


@pytest.mark.parametrize(
    ("query", "found"),
    [({"name": "EDGE"}, ["edge-1", "edge-2"]), ({"platform": "openwrt"}, ["edge-1"]),
     ({"is_active": "false"}, ["core"]), ({"host": "192.0.2.2"}, ["edge-2"]), ({"enrolled": "true"}, []),
     ({"group": MISSING}, [])],
    ids=case,
)  # fmt: skip
def test_devices_are_filtered(admin: Any, home: Any, query: dict[str, str], found: list[str]) -> None:
    factories.device(organization=home, name="edge-1")
    factories.device(organization=home, name="edge-2", platform="linux", host="192.0.2.2")
    factories.device(organization=home, name="core", platform="linux", is_active=False)
    assert names(admin.get(DEVICES, query)) == found
