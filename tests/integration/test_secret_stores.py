"""Secrets that are looked up in an external store just before a run, and are never kept."""

import datetime
import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.db import IntegrityError, transaction

from orchestrator import planning
from orchestrator.access import Role
from orchestrator.exceptions import SecretLookupError
from orchestrator.models import Command, Credential, CredentialSecrets, Device, DeviceCredential, Organization
from orchestrator.rotation import PasswordChange, follow
from orchestrator.secret_stores import Lookup
from tests import factories
from tests.integration.api_addresses import CREDENTIALS, ORGANIZATIONS
from tests.integration.test_recording import launch, take
from tests.vault import Vault, serving

pytestmark = [pytest.mark.django_db]

PASSWORD = "fr0m-the-Vault"


@pytest.fixture
def vault(settings: Any) -> Iterator[Vault]:
    """A Vault that holds root's password of the organization in net/north, and one of a neighbour."""
    held: dict[str, Any] = {"net/north/root": {"password": PASSWORD, "pin": 1234}, "net/south/root": {"password": "x"}}
    with serving(Vault(secrets=held)) as made:
        settings.VAULT_ADDRESS, settings.VAULT_TOKEN, settings.VAULT_TIMEOUT = made.url, made.token, 1.0
        yield made


@pytest.fixture
def north() -> Organization:
    """An organization with a folder."""
    return factories.organization(secret_folder="net/north")


def referring(organization: Organization, reference: str = "root#password", source: str = "vault") -> Credential:
    """A credential whose password is elsewhere."""
    row = Credential(organization=organization, name=f"ref {reference} {source}")
    row.refer(source, {"password": reference})
    row.save()
    return row


def looked_up(credential: Credential, *, seconds: float = 5.0) -> str:
    """The password that is found."""
    return Lookup(seconds=seconds).secrets(credential).password


def reason(credential: Credential, *, seconds: float = 5.0) -> str:
    """Why none is found."""
    with pytest.raises(SecretLookupError) as raised:
        Lookup(seconds=seconds).secrets(credential)
    return raised.value.detail


# ---------------------------------------------------------------- Vault
def test_a_password_is_read_with_a_token(vault: Vault, north: Organization) -> None:
    assert looked_up(referring(north)) == PASSWORD
    assert vault.asked == ["GET /v1/secret/data/net/north/root"]


def test_a_role_logs_in_once_for_a_slice(vault: Vault, north: Organization, settings: Any) -> None:
    settings.VAULT_TOKEN, (settings.VAULT_ROLE_ID, settings.VAULT_SECRET_ID) = "", vault.role
    settings.VAULT_NAMESPACE = vault.namespace = "team/fleet"
    settings.VAULT_MOUNT = vault.mount = "kv/devices"
    lookup, row = Lookup(seconds=5), referring(north)
    assert [lookup.secrets(row).password for _ in range(3)] == [PASSWORD] * 3
    assert vault.asked == ["POST /v1/auth/approle/login", "GET /v1/kv/devices/data/net/north/root"]


def test_what_is_changed_in_the_vault_counts_from_the_next_slice_on(vault: Vault, north: Organization) -> None:
    row = referring(north)
    assert looked_up(row) == PASSWORD
    vault.secrets["net/north/root"] = {"password": "another"}
    assert looked_up(row) == "another"


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("nothing#password", "Vault has no secret net/north/nothing."),
        ("root#nothing", "Vault's secret net/north/root has no text 'nothing'."),
        ("root#pin", "Vault's secret net/north/root has no text 'pin'."),
        ("deleted#password", "Vault has no secret net/north/deleted."),
        ("newline#password", "What newline#password holds can't be entered at a login."),
    ],
)
def test_what_the_vault_does_not_give_has_its_reason(
    vault: Vault, north: Organization, reference: str, why: str
) -> None:
    vault.secrets |= {"net/north/deleted": None, "net/north/newline": {"password": "a\nb"}}
    assert reason(referring(north, reference)) == why


def test_a_vault_that_is_denied_sealed_slow_or_gone_says_so(
    vault: Vault, north: Organization, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    row = referring(north)
    vault.allowed = "elsewhere/"
    assert reason(row) == "Vault denies this service the secret net/north/root."
    vault.allowed, vault.sealed = "", True
    assert reason(row) == "Vault is sealed or under maintenance."
    vault.sealed, vault.delay, settings.VAULT_TIMEOUT = False, 5.0, 0.2
    assert reason(row) == "Vault can't be asked: timed out"
    settings.VAULT_ADDRESS = "http://127.0.0.1:1"
    assert "Connection refused" in reason(row)
    settings.VAULT_TOKEN, settings.VAULT_ADDRESS, vault.delay = "", vault.url, 0.0
    assert reason(row) == "The settings give neither a token nor a role for Vault."
    settings.VAULT_ROLE_ID, settings.VAULT_SECRET_ID = "role-1", "wr0ng-Secret-Id"
    assert reason(row) == "Vault does not accept the role of this service."
    settings.VAULT_ADDRESS = ""
    assert "its settings name none" in reason(row)
    assert not any(secret in caplog.text for secret in (vault.token, "wr0ng-Secret-Id", PASSWORD))


def test_a_vault_that_is_down_is_asked_once_for_a_slice(vault: Vault, north: Organization) -> None:
    vault.sealed = True
    lookup = Lookup(seconds=5)
    for number in range(20):
        with pytest.raises(SecretLookupError, match="sealed"):
            lookup.secrets(referring(north, f"root{number}#password"))
    assert len(vault.asked) == 1


def test_a_credential_of_many_devices_is_opened_once(north: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    credential = factories.credential(organization=north)
    opened, stored = [], type(credential).secrets

    def open_it(row: Any) -> CredentialSecrets:
        opened.append(row)
        return stored(row)

    monkeypatch.setattr(type(credential), "secrets", open_it)
    lookup = Lookup(seconds=5)
    again = type(credential).objects.get(pk=credential.pk)
    assert lookup.secrets(credential) == lookup.secrets(again) == stored(credential)
    assert opened == [credential]


def test_all_lookups_together_do_not_outlast_the_lease(vault: Vault, north: Organization) -> None:
    vault.delay = 0.3
    lookup, found = Lookup(seconds=0.5), []
    for number in range(5):
        with pytest.raises(SecretLookupError) as raised:
            lookup.secrets(referring(north, f"n{number}#password"))
        found.append(raised.value.detail)
    assert len(vault.asked) <= 2
    assert found[-1] in {"The lookups of secrets took too long all together.", "Vault can't be asked: timed out"}


def test_the_token_does_not_follow_a_redirection(vault: Vault, north: Organization) -> None:
    row = referring(north)
    with serving(Vault()) as other:
        vault.answer = lambda *_: (307, {"location": other.url})  # type: ignore[method-assign]
        assert reason(row) == "Vault answers with the status 307."
        assert other.asked == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that signs itself, and its key: two files."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")])
    now = datetime.datetime.now(datetime.UTC)
    where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=2099)
    )
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signed = made.add_extension(where, critical=False).sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    text, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, text, plain))
    return str(folder / "ca.pem"), str(folder / "key.pem")


def test_only_the_certificate_authority_of_the_settings_is_believed(
    certificate: tuple[str, str], north: Organization, settings: Any
) -> None:
    with serving(Vault(secrets={"net/north/root": {"password": PASSWORD}}), certificate=certificate) as made:
        settings.VAULT_ADDRESS, settings.VAULT_TOKEN = made.url, made.token
        assert "certificate verify failed" in reason(referring(north))
        assert made.asked == []
        settings.VAULT_CA = certificate[0]
        assert looked_up(Credential.objects.get()) == PASSWORD


# ---------------------------------------------------------------- files
@pytest.fixture
def mounted(tmp_path: Path, settings: Any) -> Path:
    """A directory of secrets."""
    settings.SECRETS_DIRECTORY = str(tmp_path)
    (tmp_path / "net.north.root").write_text(f"{PASSWORD}\n")
    (tmp_path / "net.south.root").write_text("theirs")
    return tmp_path


def test_a_password_is_read_from_a_file(mounted: Path, north: Organization) -> None:
    assert looked_up(referring(north, "root", "file")) == PASSWORD
    assert (
        reason(referring(north, "gone", "file")) == "The file net.north.gone can't be read: No such file or directory."
    )
    (mounted / "net.north.binary").write_bytes(b"\xff\xfe")
    assert reason(referring(north, "binary", "file")) == "The file net.north.binary holds no text."


# ---------------------------------------------------------------- tenancy
ESCAPES = [
    "../south/root#password", "/net/south/root#password", "a/../../south/root#password", "..#password", ".#x",
    "%2e%2e/south/root#password", "root", "root#", "#password", "a//b#c", "a b#c", "a#b#c", "a\nb#c",
    "root?version=1#p", "ä#b", "",
]  # fmt: skip


@pytest.mark.parametrize("reference", ESCAPES)
def test_no_reference_leads_out_of_the_folder(vault: Vault, api: Any, north: Organization, reference: str) -> None:
    administrator = api(factories.user(organization=north, role=Role.ADMINISTRATOR))
    body = {"organization": str(north.pk), "name": "x", "source": "vault", "references": {"password": reference}}
    reply = administrator.post(CREDENTIALS, body)
    assert (reply.status_code, list(reply.json())) == (400, ["references"]), reply.content


@pytest.mark.parametrize("reference", ["../net.south.root", "/etc/passwd", "south.root", "a/b", ".", ""])
def test_no_reference_leads_to_another_file(mounted: Path, api: Any, north: Organization, reference: str) -> None:
    administrator = api(factories.user(organization=north, role=Role.ADMINISTRATOR))
    body = {"organization": str(north.pk), "name": "x", "source": "file", "references": {"password": reference}}
    assert list(administrator.post(CREDENTIALS, body).json()) == ["references"]


def test_superusers_alone_give_folders_and_no_two_organizations_share_one(api: Any, north: Organization) -> None:
    administrator = api(factories.user(organization=north, role=Role.ADMINISTRATOR))
    address = f"{ORGANIZATIONS}{north.pk}/"
    assert administrator.patch(address, {"secret_folder": "net/south"}).status_code == 403
    assert administrator.patch(address, {"secret_folder": ""}).status_code == 403
    assert administrator.patch(address, {"secret_folder": "net/north", "name": "renamed"}).status_code == 200
    boss, other = api(factories.superuser()), f"{ORGANIZATIONS}{factories.organization().pk}/"
    for folder in ("net/north", "net", "net/north/deeper", "/x", "..", "a/../b", "a.b", "a b"):
        assert list(boss.patch(other, {"secret_folder": folder}).json()) == ["secret_folder"], folder
    assert boss.patch(other, {"secret_folder": "net/northern"}).status_code == 200


def test_an_organization_without_a_folder_refers_to_nothing(vault: Vault, api: Any) -> None:
    own = factories.organization()
    body = {"organization": str(own.pk), "name": "x", "source": "vault", "references": {"password": "a#b"}}
    reply = api(factories.superuser()).post(CREDENTIALS, body)
    assert (reply.status_code, list(reply.json())) == (400, ["references"])
    row = referring(factories.organization(secret_folder="mine"), "root#password")
    Organization.objects.update(secret_folder="")
    row.refresh_from_db()
    assert "no folder" in reason(row)


# ---------------------------------------------------------------- API
def test_a_credential_moves_between_sources_and_keeps_no_secret(vault: Vault, api: Any, north: Organization) -> None:
    client = api(factories.user(organization=north, role=Role.ADMINISTRATOR))
    body = {"organization": str(north.pk), "name": "root", "username": "root"}
    made = client.post(CREDENTIALS, body | {"password": "st0red-Secret"}).json()
    address = f"{CREDENTIALS}{made['id']}/"
    assert list(client.patch(address, {"references": {"password": "root#password"}}).json()) == ["references"]
    assert list(client.patch(address, {"source": "file"}).json()) == ["source"]  # no directory is configured
    assert list(client.patch(address, {"source": "vault"}).json()) == ["references"]
    both = {"source": "vault", "references": {"password": "root#password"}, "password": "x-Secret"}
    assert list(client.patch(address, both).json()) == ["password"]
    reply = client.patch(address, both | {"password": ""})
    assert reply.json()["references"] == {"password": "root#password"}
    assert (reply.json()["source"], reply.json()["has_password"]) == ("vault", True)
    row = Credential.objects.get()
    assert row.sealed == ""
    assert list(client.patch(address, {"password": "y-Secret"}).json()) == ["password"]
    assert client.patch(address, {"name": "renamed"}).json()["references"] == {"password": "root#password"}
    assert list(client.patch(address, {"source": "stored"}).json()) == ["password"]
    stored = client.patch(address, {"source": "stored", "password": "y-Secret"}).json()
    assert (stored["source"], stored["references"]) == ("stored", {})
    row.refresh_from_db()
    assert row.secrets().password == "y-Secret"


@pytest.mark.database
def test_the_database_takes_no_secret_of_another_source() -> None:
    row = factories.credential()
    with pytest.raises(IntegrityError), transaction.atomic():
        Credential.objects.filter(pk=row.pk).update(source="vault")


# ---------------------------------------------------------------- runs
@pytest.fixture
def device(vault: Vault, north: Organization) -> Device:
    """A device whose first credential is in the Vault, and whose second one is stored."""
    stored = factories.credential(organization=north)
    return factories.device(organization=north, host_key="ssh-ed25519 AAAA", credentials=[referring(north), stored])


def test_a_run_gets_what_the_vault_holds_and_redacts_it(device: Device, outbox: Any) -> None:
    slice_, _, _ = take(launch(device.organization_id))
    plan = planning.plan(slice_)
    request = plan.request(plan.targets(0), ident="x")
    assert [target.login.password for target in request.targets] == [PASSWORD]
    assert PASSWORD in request.secrets


def test_a_device_whose_secret_is_not_found_fails_and_tries_no_other(device: Device, vault: Vault, outbox: Any) -> None:
    vault.sealed = True
    slice_, _, _ = take(launch(device.organization_id))
    assert planning.plan(slice_).targets(0) == []
    row = Command.objects.get()
    assert (row.status, row.reason_code) == ("failed", "secret_lookup")
    assert row.reason.endswith("so it was not contacted. Vault is sealed or under maintenance.")


@pytest.mark.parametrize(("certain", "order"), [(True, ["new", "vault"]), (False, ["vault", "new"])])
def test_a_changed_password_is_stored_beside_the_reference(
    north: Organization, vault: Vault, certain: bool, order: list[str]
) -> None:
    device = factories.device(organization=north, credentials=[referring(north)])
    follow(PasswordChange(run=device.pk, password="n3w-Secret"), logins={device.pk: "root"}, certain=certain)
    rows = DeviceCredential.objects.filter(device=device).order_by("position")
    found = {"vault": "", "stored": "n3w-Secret"}
    assert [row.credential.source for row in rows] == [{"new": "stored"}.get(name, name) for name in order]
    assert [row.credential.secrets().password for row in rows] == [found[row.credential.source] for row in rows]


# ---------------------------------------------------------------- admin
def test_the_admin_takes_references_and_never_a_secret_beside_them(
    vault: Vault, client: Any, north: Organization
) -> None:
    client.force_login(factories.superuser())
    form = {"organization": str(north.pk), "name": "root", "username": "root", "source": "vault"}
    address = "/admin/orchestrator/credential/add/"
    page = client.post(address, form | {"references": '{"password": "../south/root#password"}'}).content.decode()
    assert "The reference of password must be path#field" in page
    page = client.post(address, form | {"references": '{"password": "root#password"}', "password": "typed-1"})
    assert b"It is looked up elsewhere" in page.content
    reply = client.post(address, form | {"references": '{"password": "root#password"}'})
    assert reply.status_code == 302, reply.content
    row = Credential.objects.get()
    assert (row.source, row.sealed, row.has_password) == ("vault", "", True)
    assert Lookup(seconds=5).secrets(row) == CredentialSecrets(password=PASSWORD)
