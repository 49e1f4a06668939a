"""Preview and launch through the API, down to the rows and the queue; no device is contacted."""

from typing import Any

import pytest

from orchestrator.access import Role
from orchestrator.models import Command, MassCommand, Slice
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.database]

URL = "/api/v1/controller/batch-command/"
PREVIEW = URL + "confirmation/"
UPTIME = {"type": "custom", "input": {"command": "uptime"}}


def test_a_launch_freezes_its_targets_and_enqueues_slices(
    api: Any, outbox: Any, django_capture_on_commit_callbacks: Any
) -> None:
    organization = factories.organization()
    devices = [factories.device(organization=organization) for _ in range(3)]
    operator = factories.user(organization=organization)
    with django_capture_on_commit_callbacks(execute=True):
        reply = api(operator).post(URL, {"organization": str(organization.pk), **UPTIME})
    assert reply.status_code == 201, reply.json()
    assert reply.json()["device_count"] == 3
    assert reply.json()["counts"]["queued"] == 3
    assert set(Command.objects.values_list("device", flat=True)) == {device.pk for device in devices}
    assert len(outbox) == 1


@pytest.mark.parametrize("counted", [0, 2, 3, 9])
def test_each_row_has_its_slice_also_when_devices_change_under_the_launch(
    api: Any, outbox: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    settings.SLICE_SIZE = 2
    organization = factories.organization()
    for _ in range(3):
        factories.device(organization=organization)
    factories.device(organization=organization, is_active=False)
    monkeypatch.setattr("orchestrator.targeting.TargetSet.totals", lambda self: (counted, counted))
    reply = api(factories.user(organization=organization)).post(URL, {"organization": str(organization.pk), **UPTIME})
    assert reply.status_code == 201, reply.json()
    assert reply.json()["counts"] | {"queued": 3, "skipped": 1} == reply.json()["counts"]
    queued = Command.objects.filter(status="queued").order_by("device_id")
    assert [row.slice and row.slice.number for row in queued] == [1, 1, 2]
    assert list(Slice.objects.order_by("number").values_list("number", "size")) == [(1, 2), (2, 1)]
    skipped = Command.objects.get(status="skipped")
    assert (skipped.slice, skipped.reason_code) == (None, "inactive")
    assert skipped.finished is not None


def test_a_preview_tells_who_is_ineligible_and_why(api: Any) -> None:
    organization = factories.organization()
    good = factories.device(organization=organization, name="good")
    factories.device(organization=organization, name="off", is_active=False)
    factories.device(organization=organization, name="bare", credentials=[])
    operator = factories.user(organization=organization)
    reply = api(operator).post(PREVIEW, {"organization": str(organization.pk)}).json()
    assert (reply["count"], reply["eligible_count"], reply["ineligible_count"]) == (3, 1, 2)
    reasons = {row["name"]: row["reason"] for row in reply["results"]}
    assert reasons == {"good": "", "off": "The device is deactivated.", "bare": "The device has no credential."}
    assert [row["device"] for row in reply["results"] if row["eligible"]] == [str(good.pk)]
    assert not MassCommand.objects.exists()


def test_a_set_that_changed_since_the_preview_is_refused(api: Any, outbox: Any) -> None:
    organization = factories.organization()
    gone = factories.device(organization=organization)
    operator = factories.user(organization=organization)
    body = {"organization": str(organization.pk), **UPTIME}
    digest = api(operator).post(PREVIEW, body).json()["digest"]
    new = factories.device(organization=organization)
    gone_id = str(gone.pk)
    gone.delete()
    reply = api(operator).post(URL, {**body, "digest": digest})
    assert reply.status_code == 409
    assert (reply.json()["added"], reply.json()["removed"]) == ([str(new.pk)], [gone_id])
    assert not MassCommand.objects.exists()


def test_a_viewer_may_not_launch(api: Any) -> None:
    organization = factories.organization()
    factories.device(organization=organization)
    viewer = factories.user(organization=organization, role=Role.VIEWER)
    assert api(viewer).post(URL, {"organization": str(organization.pk), **UPTIME}).status_code == 403


def test_all_devices_are_for_superusers(api: Any, outbox: Any) -> None:
    device = factories.device()
    operator = factories.user(organization=device.organization)
    assert "all_devices" in api(operator).post(URL, {"all_devices": True, **UPTIME}).json()
    reply = api(factories.superuser()).post(URL, {"all_devices": True, "expected_count": 1, **UPTIME})
    assert reply.status_code == 201
    assert reply.json()["organization"] is None
    assert api(operator).get(f"{URL}{reply.json()['id']}/").status_code == 404
