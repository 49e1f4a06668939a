"""Enrolment over the API: shown, compared, accepted; what is pinned is what was compared."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from orchestrator import host_keys
from orchestrator.exceptions import DeviceUnreachableError
from orchestrator.models import AuditEntry, Command, Device, MassCommand, Slice, fingerprints
from tests import factories
from tests.integration.api_addresses import launch

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZyVPqYZYXE0hTzW0bTgzlhZyZvoqFJ8MBxKh7qyHsB"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0iG0cLr2i9iJ0iG0cLr2i9iJ0iG0cLr2i9iJ0iG0cL"
MANY = "device-host-keys"


class Network:
    """What devices show, by port."""

    def __init__(self) -> None:
        self.shown: dict[int, str] = {}

    def scan(self, host: str, port: int) -> str:
        """As ``host_keys.scan``."""
        if port not in self.shown:
            raise DeviceUnreachableError
        return self.shown[port]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Devices on port 22 show KEY."""
    network = Network()
    network.shown[22] = KEY
    monkeypatch.setattr(host_keys, "scan", network.scan)
    return network


@pytest.fixture
def root(api: Any) -> Any:
    """A superuser's."""
    return api(factories.superuser())


def enrol(root: Any, device: Device, **body: Any) -> Any:
    """POST to the device's host-key."""
    return root.post(reverse("device-host-key", args=[device.pk]), body)


def audited() -> list[str]:
    """The actions in the audit log."""
    return list(AuditEntry.objects.order_by("at").values_list("action", flat=True))


def test_a_key_is_shown_first_and_pinned_by_its_fingerprint(root: Any, network: Network) -> None:
    device = factories.device()
    shown = enrol(root, device).json()
    assert (shown["host_key"], shown["host_key_state"], shown["shown_fingerprint"]) == ("", "none", fingerprints(KEY))
    assert audited() == []
    pinned = enrol(root, device, fingerprint=shown["shown_fingerprint"]).json()
    assert (pinned["host_key"], pinned["host_key_state"], pinned["shown_fingerprint"]) == (KEY, "pinned", "")
    assert audited() == ["device.enrol"]
    assert AuditEntry.objects.get().details == {"pinned": fingerprints(KEY), "replaced": ""}


def test_another_key_than_the_accepted_one_is_never_pinned(root: Any, network: Network) -> None:
    device = factories.device()
    refused = enrol(root, device, fingerprint=fingerprints(OTHER))
    assert (refused.status_code, refused.json()["code"]) == (409, "host_key_changed")
    assert (refused.json()["expected"], refused.json()["shown"]) == (fingerprints(OTHER), fingerprints(KEY))
    enrol(root, device)
    network.shown[22] = OTHER  # somebody came between the look and the acceptance
    assert enrol(root, device, accept=True).status_code == 409
    assert Device.objects.get().host_key == ""


def test_a_changed_key_is_marked_audited_once_and_accepted_by_an_administrator(root: Any, network: Network) -> None:
    device = factories.device(host_key=OTHER)
    for body in ({}, {"accept": True}, {}):
        assert enrol(root, device, **body).status_code == 409
    shown = root.get(reverse("device-detail", args=[device.pk])).json()
    assert (shown["host_key_state"], shown["shown_fingerprint"]) == ("changed", fingerprints(KEY))
    assert audited() == ["device.host_key_changed"]
    listed = root.get(reverse("device-list"), {"host_key_state": "changed"}).json()["results"]
    assert [row["id"] for row in listed] == [str(device.pk)]
    assert enrol(root, device, fingerprint=fingerprints(KEY)).json()["host_key_state"] == "pinned"
    assert AuditEntry.objects.latest("at").details == {"pinned": fingerprints(KEY), "replaced": fingerprints(OTHER)}


def test_the_mark_goes_when_the_pinned_key_is_shown_again_or_another_one_is_written(
    root: Any, network: Network
) -> None:
    device = factories.device(host_key=OTHER)
    enrol(root, device)
    network.shown[22] = OTHER
    assert enrol(root, device).json()["host_key_state"] == "pinned"
    network.shown[22] = KEY
    enrol(root, device)
    reply = root.patch(reverse("device-detail", args=[device.pk]), {"host_key": KEY}).json()
    assert (reply["host_key_state"], reply["shown_fingerprint"]) == ("pinned", "")


@pytest.mark.parametrize("given", ["x", "SHA256:", "MD5:00:11", f"{fingerprints(KEY)}=", 7, None])
def test_a_fingerprint_that_is_none_is_refused(root: Any, network: Network, given: Any) -> None:
    reply = enrol(root, factories.device(), fingerprint=given)
    assert (reply.status_code, list(reply.json())) == (400, ["fingerprint"])


def test_many_are_asked_at_once_and_each_says_what_became_of_it(root: Any, network: Network) -> None:
    own: dict[str, Any] = {"organization": factories.organization()}
    new, silent = factories.device(name="new", **own), factories.device(name="silent", port=9, **own)
    changed, same = factories.device(name="changed", host_key=OTHER, **own), factories.device(host_key=KEY, **own)
    ids = [str(device.pk) for device in (new, silent, changed, same)]

    def outcomes(**body: Any) -> list[str]:
        reply = root.post(reverse(MANY), {"devices": ids, **body})
        assert reply.status_code == 200, reply.content
        return [row["outcome"] for row in reply.json()["results"]]

    assert outcomes() == ["shown", "silent", "changed", "unchanged"]
    assert outcomes(accept=True) == ["pinned", "silent", "changed", "unchanged"]
    assert outcomes(accept=True, replace=True) == ["unchanged", "silent", "pinned", "unchanged"]


def test_a_foreign_device_is_none_among_many(api: Any, network: Network) -> None:
    mine, foreign = factories.device(), factories.device()
    client = api(factories.user(organization=mine.organization, role="administrator"))
    reply = client.post(reverse(MANY), {"devices": [str(mine.pk), str(foreign.pk)], "accept": True})
    assert reply.status_code == 400
    assert str(foreign.pk) in reply.json()["devices"][0]
    assert not Device.objects.exclude(host_key="").exists()


def test_a_known_hosts_file_pins_what_it_knows(root: Any) -> None:
    organization = factories.organization()
    devices = [
        factories.device(organization=organization, name=name, host=host, host_key=pinned)
        for name, host, pinned in (("a", "192.0.2.1", ""), ("b", "192.0.2.2", OTHER), ("c", "192.0.2.3", KEY))
    ]
    stranger = factories.device(host="192.0.2.1")
    text = "".join(f"192.0.2.{number} {KEY}\n" for number in range(1, 5)) + f"* {KEY}\n"
    body: dict[str, Any] = {"organization": str(organization.pk), "known_hosts": text}

    def outcomes(**more: Any) -> list[str]:
        reply = root.post(reverse("device-known-hosts"), body | more)
        assert reply.json()["ignored"] == [{"line": 5, "reason": "Patterns are not supported: *"}]
        return [row["outcome"] for row in reply.json()["results"]]

    assert outcomes() == ["shown", "changed", "unchanged"]
    assert outcomes(accept=True) == ["pinned", "changed", "unchanged"]
    assert outcomes(replace=True) == ["unchanged", "pinned", "unchanged"]
    assert {Device.objects.get(pk=device.pk).host_key for device in devices} == {KEY}
    assert Device.objects.get(pk=stranger.pk).host_key == ""
    assert audited() == ["device.enrol", "device.enrol"]


def test_too_many_hashed_names_are_refused_and_not_worked_through(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.actions.enrolment._MOST_COMPARISONS", 0)
    device = factories.device()
    body = {"organization": str(device.organization.pk), "known_hosts": f"|1|AAAA|AAAA {KEY}"}
    reply = root.post(reverse("device-known-hosts"), body)
    assert (reply.status_code, list(reply.json())) == (400, ["known_hosts"])


def test_the_command_reads_known_hosts(tmp_path: Any, capsys: Any) -> None:
    device = factories.device(name="attic", host="192.0.2.7")
    file = tmp_path / "known_hosts"
    file.write_text(f"192.0.2.7 {KEY}\n@revoked * {KEY}\n")
    call_command("enrol", "--known-hosts", str(file))
    assert Device.objects.get().host_key == ""
    call_command("enrol", "--known-hosts", str(file), "--accept")
    assert Device.objects.get().host_key == KEY
    said = capsys.readouterr().out
    assert "line 2: Revoked keys are not supported" in said
    assert f"attic (192.0.2.7, port 22): {fingerprints(KEY)}, pinned now" in said
    Device.objects.filter(pk=device.pk).update(host_key=OTHER)
    with pytest.raises(CommandError, match="1 of 1 devices need a look"):
        call_command("enrol", "--known-hosts", str(file), "--accept")
    with pytest.raises(CommandError, match="can't be read"):
        call_command("enrol", "--known-hosts", str(tmp_path / "nothing"))


def test_a_device_that_showed_another_key_in_a_run_is_marked(root: Any, network: Network) -> None:
    device, silent = factories.device(host_key=OTHER), factories.device(host_key=OTHER, port=9)
    run = launch(root, devices=[str(device.pk), str(silent.pk)])
    slice_ = Slice.objects.get(mass_command=run["id"])
    rows = Command.objects.filter(slice=slice_)
    rows.update(status="unreachable", reason_code="host_key", finished=timezone.now())
    MassCommand.objects.count_moves(slice_.mass_command_id, {("queued", "unreachable"): 2})
    host_keys.look_again(slice_)
    states = [(row.host_key_state, row.shown_key) for row in Device.objects.order_by("port")]
    assert states == [("changed", ""), ("changed", KEY)]
    entries = AuditEntry.objects.filter(action="device.host_key_changed")
    assert {row.details["run"] for row in entries} == {run["id"]}
    assert {row.details["shown"] for row in entries} == {"", fingerprints(KEY)}
