"""After a password change the stored credential follows."""

import uuid

import pytest

from orchestrator.models import Credential, Device
from orchestrator.rotation import PasswordChange, follow
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NEW = "n3w-Secret"


def change(username: str = "") -> PasswordChange:
    """A change to NEW by a new run."""
    return PasswordChange(run=uuid.uuid4(), password=NEW, username=username)


def passwords(device: Device) -> list[str]:
    """The passwords that will be tried, in order."""
    return [link.credential.secrets().password for link in device.device_credentials.order_by("position")]


def test_a_credential_of_one_device_is_changed_in_place() -> None:
    device = factories.device()
    credential = device.credentials.get()
    follow(change(), logins={device.pk: "root"}, certain=True)
    assert passwords(device) == [NEW]
    assert device.credentials.get() == credential


def test_a_shared_credential_is_cloned_once_for_those_that_changed() -> None:
    organization = factories.organization()
    shared = factories.credential(organization=organization)
    first, second, third = (factories.device(organization=organization, credentials=[shared]) for _ in range(3))
    one = change()
    follow(one, logins={first.pk: "root"}, certain=True)
    follow(one, logins={second.pk: "root"}, certain=True)
    assert [passwords(device) for device in (first, second, third)] == [[NEW], [NEW], ["old-Secret1"]]
    assert first.credentials.get() == second.credentials.get()
    follow(one, logins={third.pk: "root"}, certain=True)
    assert third.credentials.get() == first.credentials.get()
    assert Credential.objects.count() == 2


def test_another_users_password_leaves_the_credential_alone() -> None:
    device = factories.device()
    follow(change("guest"), logins={device.pk: "root"}, certain=True)
    assert passwords(device) == ["old-Secret1"]


def test_a_key_stays_with_its_credential() -> None:
    organization = factories.organization()
    both = factories.credential(organization=organization, private_key="KEY")
    device = factories.device(organization=organization, credentials=[both])
    follow(change(), logins={device.pk: "root"}, certain=True)
    assert device.credentials.get().secrets().private_key == "KEY"


def test_an_uncertain_change_is_tried_second() -> None:
    organization = factories.organization()
    old, other = factories.credential(organization=organization), factories.credential(organization=organization)
    device = factories.device(organization=organization, credentials=[old, other])
    follow(change(), logins={device.pk: "root"}, certain=False)
    assert passwords(device) == ["old-Secret1", NEW, "old-Secret1", NEW]


def test_the_repr_of_a_change_shows_no_password() -> None:
    assert NEW not in repr(change())


def test_a_credential_that_no_key_opens_stands_in_nobodys_way() -> None:
    organization = factories.organization()
    lost, good = factories.credential(organization=organization), factories.credential(organization=organization)
    Credential.objects.filter(pk=lost.pk).update(sealed="1$lost$AAAA")
    device = factories.device(organization=organization, credentials=[lost, good])
    follow(change(), logins={device.pk: "root"}, certain=True)
    good.refresh_from_db()
    assert good.secrets().password == NEW
    assert Credential.objects.get(pk=lost.pk).sealed == "1$lost$AAAA"
