"""Import of devices in the admin: complaints by line and column, a preview that changes nothing, the same twice."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from orchestrator.access import Role
from orchestrator.device_table import MOST, read_table
from orchestrator.models import Device, Organization
from tests import factories

GOOD = """name,host,port,platform,group,location,tags
attic,10.0.0.1,2222,OpenWrt,roof,Vienna,"solar;old"
cellar,h2,,,,,
"""
HERE = "admin:orchestrator_device_import"


@pytest.fixture
def organization(db: Any) -> Organization:
    return factories.organization()


@pytest.fixture
def boss(client: Any, organization: Organization) -> Any:
    user = factories.user(organization=organization, role=Role.ADMINISTRATOR, is_staff=True)
    client.force_login(user)
    return user


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("", [(1, "name"), (1, "host")]),
        ("name,host,colour,name\n", [(1, "colour"), (1, "name")]),
        ("name,host\n", [(1, "")]),
        ("name,host\na,h\n\nb\n", [(4, "")]),
        ("name,host\n,\nx,\n", [(3, "host")]),
        ("name;host;port\na;h;0\nb;h;99999\nc;h;²\n", [(2, "port"), (3, "port"), (4, "port")]),
        ("name,host,platform\na,-h,ios\n", [(2, "host"), (2, "platform")]),
        ("name,host\na,h\na,h\n", [(3, "name")]),
        ("name,host,tags\na,h," + "x" * 65 + "\n", [(2, "tags")]),
        ("name,host,group\n" + "x" * 129 + ",h," + "y" * 129 + "\n", [(2, "name"), (2, "group")]),
        ('name,host\n"a,h\n', [(1, "")]),
        ("name,host\na\x00b,h\n", [(2, "name")]),
        ("name,host\n" + "".join(f"d{n},h\n" for n in range(MOST + 1)), [(MOST + 2, "")]),
    ],
)
def test_a_complaint_has_its_line_and_column(text: str, complaints: list[tuple[int, str]]) -> None:
    assert [(complaint.line, complaint.column) for complaint in read_table(text)[1]] == complaints


def test_quotes_separators_and_marks_of_spreadsheets_are_read() -> None:
    for text in (GOOD, "\ufeff" + GOOD.replace("\n", "\r\n"), GOOD.replace(",", "\t")):
        drafts, complaints = read_table(text)
        assert complaints == []
        assert [(row.name, row.port, row.platform, row.tags) for row in drafts] == [
            ("attic", 2222, "openwrt", ("solar", "old")), ("cellar", None, "", ()),
        ]  # fmt: skip


def test_an_import_is_shown_before_it_is_done_and_changes_nothing_twice(
    client: Any, organization: Organization, boss: Any
) -> None:
    factories.device(organization=organization, name="cellar", host="old", platform="openwrt")
    fields = {"organization": organization.pk, "kind": "csv", "platform": "linux"}
    upload = SimpleUploadedFile("devices.csv", GOOD.encode())
    page = client.post(reverse(HERE), fields | {"file": upload})
    text = page.content.decode()
    assert page.context["report"].counts() == {
        "create group": 1, "create location": 1, "create device": 1, "update device": 1,
    }  # fmt: skip
    assert "host: old → h2" in text
    assert Device.objects.count() == 1
    apply = fields | {"sealed": page.context["sealed"], "apply": "1"}
    assert client.post(reverse(HERE), apply).url == reverse("admin:orchestrator_device_changelist")
    attic = Device.objects.get(name="attic")
    assert (attic.port, attic.platform, str(attic.group), str(attic.location), attic.tags) == (
        2222, "openwrt", "roof", "Vienna", ["solar", "old"],
    )  # fmt: skip
    assert Device.objects.get(name="cellar").platform == "openwrt"
    page = client.post(reverse(HERE), fields | {"text": GOOD})
    assert "What would change: nothing" in page.content.decode()


def test_an_inventory_is_imported_and_its_passwords_are_on_no_page(
    client: Any, organization: Organization, boss: Any
) -> None:
    text = "[roof]\nattic ansible_host=10.0.0.1 ansible_user=root ansible_password=unmistakable-7\n"
    fields = {"organization": organization.pk, "kind": "inventory", "platform": "openwrt"}
    page = client.post(reverse(HERE), fields | {"file": SimpleUploadedFile("hosts", text.encode())})
    assert page.context["report"].counts()["create device"] == 1, page.context["form"].errors
    assert "unmistakable-7" not in page.content.decode()
    client.post(reverse(HERE), fields | {"sealed": page.context["sealed"], "apply": "1"})
    assert Device.objects.get().credentials.get().secrets().password == "unmistakable-7"
    assert client.post(reverse(HERE), fields | {"text": "[x\n"}).context["form"].non_field_errors()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "Choose a file"),
        ({"text": GOOD, "credential": "theirs"}, "no credential of this name"),
        ({"file": SimpleUploadedFile("x.csv", b"name,host\n\xff,h\n")}, "no UTF-8"),
        ({"text": GOOD, "organization": "00000000-0000-4000-8000-000000000000"}, "Select a valid choice"),
        ({"sealed": "nonsense"}, "Choose a file"),
    ],
)
def test_what_cannot_be_read_is_said_at_its_field(
    client: Any, organization: Organization, boss: Any, given: dict[str, Any], error: str
) -> None:
    factories.credential(name="theirs")
    fields = {"organization": organization.pk, "kind": "csv", "platform": "linux"}
    page = client.post(reverse(HERE), fields | given)
    assert error in str(page.context["form"].errors)
    assert not Device.objects.exists()


def test_only_administrators_import_and_only_into_their_own(client: Any, organization: Organization) -> None:
    for role in (Role.OPERATOR, Role.VIEWER):
        client.force_login(factories.user(organization=organization, role=role, is_staff=True))
        assert client.get(reverse(HERE)).status_code == 403
        page = client.get(reverse("admin:orchestrator_device_changelist"))
        assert reverse(HERE) not in page.content.decode()
    client.force_login(factories.user(organization=factories.organization(), role=Role.ADMINISTRATOR, is_staff=True))
    fields = {"organization": organization.pk, "kind": "csv", "platform": "linux", "text": GOOD, "apply": "1"}
    assert "organization" in client.post(reverse(HERE), fields).context["form"].errors
    assert not Device.objects.exists()
