"""Saved target sets: the same language in the API, the admin and on the command line, resolved when they are used."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from orchestrator.access import Role
from orchestrator.models import Command, MassCommand, SavedTargets, Schedule
from orchestrator.scheduling import start_due
from tests import factories
from tests.integration.api_addresses import CONTROLLER, PREVIEW, RUNS, SAVED, UPTIME, case, launch, names

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]


class Fleet:
    """An organization with some devices."""

    def __init__(self) -> None:
        self.organization = factories.organization(name="North")
        own: dict[str, Any] = {"organization": self.organization}
        self.group, self.location = factories.group(name="aps", **own), factories.location(name="roof", **own)
        self.devices = {
            "ap-1": factories.device(name="ap-1", group=self.group, tags=["sold"], **own),
            "ap-2": factories.device(name="ap-2", group=self.group, location=self.location, **own),
            "srv": factories.device(name="srv", platform="linux", tags=["sold"], **own),
        }
        self.operator = factories.user(username="jo", organization=self.organization, is_staff=True)

    def ids(self, *names: str) -> list[str]:
        """The ids of these devices."""
        return [str(self.devices[name].pk) for name in names]

    def saved(self, **targets: Any) -> str:
        """The id of a saved set."""
        return str(factories.saved_targets(organization=self.organization, targets=targets).pk)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def operator(api: Any, fleet: Fleet) -> Any:
    """A client of the operator."""
    return api(fleet.operator)


def _shown(client: Any, **targets: Any) -> set[str]:
    reply = client.post(PREVIEW, targets)
    assert reply.status_code == 200, reply.content
    return {row["name"] for row in reply.json()["results"] if row["eligible"]}


def _body(fleet: Fleet, targets: Any, **more: Any) -> dict[str, Any]:
    return {"organization": str(fleet.organization.pk), "name": "set", "targets": targets, **more}


# ---------------------------------------------------------------- what they mean
def test_a_saved_set_means_what_its_filter_means_and_is_combined_with_all_else(operator: Any, fleet: Fleet) -> None:
    group, aps = str(fleet.group.pk), {"ap-1", "ap-2"}
    assert _shown(operator, saved=fleet.saved(group=group)) == aps
    assert _shown(operator, saved=fleet.saved(location=str(fleet.location.pk))) == {"ap-2"}
    assert _shown(operator, saved=fleet.saved(organization=str(fleet.organization.pk))) == set(fleet.devices)
    assert _shown(operator, saved=fleet.saved(tags=["sold"])) == {"ap-1", "srv"}
    assert _shown(operator, saved=fleet.saved(tags=["sold"]), platform="openwrt") == {"ap-1"}
    assert _shown(operator, saved=fleet.saved(name="ap-*"), exclude={"devices": fleet.ids("ap-1")}) == {"ap-2"}
    assert _shown(operator, saved=fleet.saved(devices=fleet.ids("ap-1", "srv"))) == {"ap-1", "srv"}
    assert _shown(operator, saved=fleet.saved(devices=fleet.ids("ap-1", "srv"), platform="linux")) == {"srv"}
    assert _shown(operator, saved=fleet.saved(name="*", exclude={"groups": [group]})) == {"srv"}
    assert _shown(operator, saved=fleet.saved(name="*", exclude={"devices": fleet.ids("srv")})) == aps
    assert _shown(operator, saved=fleet.saved(group=group), tags=["sold"], name="ap*") == {"ap-1"}


def test_a_picked_device_outside_of_the_set_is_skipped_with_that_reason(operator: Any, fleet: Fleet) -> None:
    saved = fleet.saved(group=str(fleet.group.pk))
    run = launch(operator, saved=saved, devices=fleet.ids("ap-1", "srv"))
    rows = {row.device_name: row for row in Command.objects.filter(mass_command=run["id"])}
    assert (rows["ap-1"].status, rows["srv"].status) == ("queued", "skipped")
    assert rows["srv"].reason == "The device was picked, but it is not in the saved set of the filter."


def test_it_is_resolved_when_it_is_used_and_the_run_says_which_it_was(operator: Any, fleet: Fleet) -> None:
    saved = fleet.saved(name="ap-*")
    digest = operator.post(PREVIEW, {"saved": saved, **UPTIME}).json()["digest"]
    run = MassCommand.objects.get(pk=launch(operator, saved=saved, digest=digest)["id"])
    assert (run.device_count, run.organization, run.targets) == (2, fleet.organization, {"saved": saved})
    factories.device(name="ap-3", organization=fleet.organization)
    reply = operator.post(RUNS, {**UPTIME, "saved": saved, "digest": digest})
    assert (reply.status_code, reply.json()["code"]) == (409, "targets_changed")
    assert launch(operator, saved=saved)["device_count"] == 3


def test_a_schedule_takes_the_set_as_it_is_at_its_time_and_starts_nothing_without_it(
    operator: Any, fleet: Fleet
) -> None:
    saved = fleet.saved(name="ap-*")
    body = {**UPTIME, "name": "nightly", "cron": "0 3 * * *", "targets": {"saved": saved}}
    assert operator.post(CONTROLLER + "schedule/", body).status_code == 201
    SavedTargets.objects.update(targets={"name": "srv"})
    _due()
    assert Command.objects.get().device_name == "srv"
    MassCommand.objects.all().delete()
    SavedTargets.objects.all().delete()
    _due()
    assert not MassCommand.objects.exists()
    assert "no such saved target set" in Schedule.objects.get().last_result


def _due() -> None:
    schedule = Schedule.objects.get()
    start_due(now=schedule.next_run)


@pytest.mark.parametrize("part", ["group", "location", "exclude"])
def test_a_set_whose_parts_were_deleted_is_refused_and_never_widens(operator: Any, fleet: Fleet, part: str) -> None:
    group, location = str(fleet.group.pk), str(fleet.location.pk)
    targets: dict[str, dict[str, Any]] = {
        "group": {"group": group}, "location": {"location": location},
        "exclude": {"name": "*", "exclude": {"groups": [group]}},
    }  # fmt: skip
    saved = fleet.saved(**targets[part])
    fleet.group.delete()
    fleet.location.delete()
    for address in (PREVIEW, RUNS):
        reply = operator.post(address, {**UPTIME, "saved": saved})
        assert reply.status_code == 400
        assert "was deleted. Change the set." in reply.json()["saved"][0]


def test_a_set_needs_a_fixed_number_of_queries(operator: Any, fleet: Fleet) -> None:
    other = factories.group(organization=fleet.organization)
    saved = fleet.saved(group=str(fleet.group.pk), exclude={"groups": [str(other.pk)]})
    counts = []
    for more in (0, 20):
        for _ in range(more):
            factories.device(organization=fleet.organization, group=fleet.group)
        with CaptureQueriesContext(connection) as captured:
            assert operator.post(PREVIEW, {"saved": saved}).json()["count"] == 2 + more
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_a_foreign_set_is_as_unknown_as_a_missing_one(operator: Any) -> None:
    foreign = factories.saved_targets(targets={"name": "*"})
    for address in (PREVIEW, RUNS):
        reply = operator.post(address, {**UPTIME, "saved": str(foreign.pk)})
        assert (reply.status_code, reply.json()) == (400, {"saved": ["There is no such saved target set."]})


def test_a_set_of_another_organization_than_the_one_given_is_refused(api: Any, fleet: Fleet) -> None:
    body = {**UPTIME, "saved": fleet.saved(name="*"), "organization": str(factories.organization().pk)}
    assert "saved" in api(factories.superuser()).post(PREVIEW, body).json()


# ---------------------------------------------------------------- making them
def test_operators_make_change_and_delete_sets_and_viewers_read_them(api: Any, operator: Any, fleet: Fleet) -> None:
    made = operator.post(SAVED, _body(fleet, {"name": "ap-*", "exclude": None}))
    assert made.status_code == 201, made.content
    assert made.json()["targets"] == {"name": "ap-*"}
    address = f"{SAVED}{made.json()['id']}/"
    assert operator.patch(address, {"targets": {"platform": "linux"}}).json()["targets"] == {"platform": "linux"}
    assert operator.patch(address, {"name": "servers"}).json()["targets"] == {"platform": "linux"}
    viewer = api(factories.user(organization=fleet.organization, role=Role.VIEWER))
    assert names(viewer.get(f"{SAVED}?name=serv")) == ["servers"]
    assert viewer.post(SAVED, _body(fleet, {"name": "*"})).status_code == 403
    assert viewer.delete(address).status_code == 403
    assert operator.delete(address).status_code == 204


BAD: list[tuple[Any, str]] = [
    ({}, "targets"),
    (None, "targets"),
    ("all", "targets"),
    ({"exclude": {"devices": ["ap-1"]}}, "targets.exclude"),
    ({"saved": "another"}, "targets.saved"),
    ({"all_devices": True}, "targets.all_devices"),
    ({"devices": []}, "targets.devices"),
    ({"devices": ["foreign"]}, "targets.devices"),
    ({"group": "foreign"}, "targets.group"),
    ({"organization": "foreign"}, "targets.organization"),
    ({"name": "*", "exclude": {"groups": ["foreign"]}}, "targets.exclude"),
    ({"nmae": "*"}, "targets.nmae"),
    ({"name": "a\u0000"}, "targets.name"),
]


@pytest.mark.parametrize(("targets", "field"), BAD, ids=case)
def test_what_a_launch_would_refuse_is_refused_when_it_is_saved(
    operator: Any, fleet: Fleet, targets: Any, field: str
) -> None:
    foreign = {
        "devices": str(factories.device().pk), "group": str(factories.group().pk),
        "organization": str(factories.organization().pk),
    }  # fmt: skip
    text = json.dumps(targets).replace('["foreign"]', json.dumps([foreign["devices"]]))
    for name, pk in foreign.items():
        text = text.replace(f'"{name}": "foreign"', f'"{name}": "{pk}"')
    reply = operator.post(SAVED, _body(fleet, json.loads(text)))
    assert reply.status_code == 400, reply.content
    found = reply.json()
    for name in field.split("."):
        assert name in found, reply.content
        found = found[name]


def test_a_name_is_taken_once_in_an_organization_and_a_set_stays_there(api: Any, operator: Any, fleet: Fleet) -> None:
    made = operator.post(SAVED, _body(fleet, {"name": "*"})).json()
    assert "name" in operator.post(SAVED, _body(fleet, {"name": "*"})).json()
    assert operator.put(f"{SAVED}{made['id']}/", _body(fleet, {"name": "*"})).status_code == 200
    other = str(factories.organization().pk)
    root = api(factories.superuser())
    assert root.post(SAVED, _body(fleet, {"name": "*"}, organization=other)).status_code == 201
    assert "organization" in root.patch(f"{SAVED}{made['id']}/", {"organization": other}).json()


# ---------------------------------------------------------------- in the admin
def test_the_admin_page_says_the_same_filter(client: Any, fleet: Fleet) -> None:
    client.force_login(fleet.operator)
    form = {"organization": str(fleet.organization.pk), "name": "set"}
    add = reverse("admin:orchestrator_savedtargets_add")
    targets = {
        "group": str(fleet.group.pk), "platform": "openwrt", "device_name": "ap-*", "tags": "sold\nnew",
        "devices": "ap-1\nap-2", "exclude_devices": "srv", "exclude_groups": [str(fleet.group.pk)],
    }  # fmt: skip
    reply = client.post(add, form | targets)
    assert reply.status_code == 302, reply.context["errors"]
    made = SavedTargets.objects.get()
    assert {**made.targets, "devices": set(made.targets["devices"])} == {
        "group": str(fleet.group.pk), "platform": "openwrt", "name": "ap-*", "tags": ["sold", "new"],
        "devices": set(fleet.ids("ap-1", "ap-2")),
        "exclude": {"devices": fleet.ids("srv"), "groups": [str(fleet.group.pk)]},
    }  # fmt: skip
    change = reverse("admin:orchestrator_savedtargets_change", args=[made.pk])
    page = client.get(change)
    assert page.context["adminform"].form.initial["devices"].splitlines() == ["ap-1", "ap-2"]
    assert client.post(change, {"name": "set", "everything": "on"}).status_code == 302
    made.refresh_from_db()
    assert made.targets == {"organization": str(fleet.organization.pk)}


@pytest.mark.parametrize(
    ("given", "field"),
    [({}, None), ({"devices": "nobody"}, "devices"), ({"group": "foreign"}, "group"), ({"name": ""}, "name")],
)
def test_the_admin_page_refuses_what_the_api_refuses(client: Any, fleet: Fleet, given: Any, field: str | None) -> None:
    client.force_login(fleet.operator)
    given = {name: str(factories.group().pk) if value == "foreign" else value for name, value in given.items()}
    form = {"organization": str(fleet.organization.pk), "name": "set", **given}
    reply = client.post(reverse("admin:orchestrator_savedtargets_add"), form)
    assert reply.status_code == 200
    assert (field or "__all__") in reply.context["adminform"].form.errors
    assert not SavedTargets.objects.exists()


# ---------------------------------------------------------------- on the command line
def _run(*arguments: str, **options: Any) -> Any:
    out = StringIO()
    call_command("launch", "--user", "jo", *arguments, stdout=out, **options)
    return json.loads(out.getvalue())


def test_the_command_line_speaks_the_same_language(fleet: Fleet) -> None:
    saved = SavedTargets.objects.get(pk=fleet.saved(name="ap-*"))
    targets = ("--saved", saved.name, "--exclude-device", "ap-2", "--platform", "openwrt")
    shown = _run("--preview", *targets)
    assert (shown["count"], shown["eligible_count"]) == (1, 1)
    what = ("--type", "custom", "--input", '{"command": "uptime"}', "--controls", '{"canary": 1}')
    made = _run(*targets, *what, "--digest", shown["digest"], "--expected-count", "1", "--label", "by hand")
    run = MassCommand.objects.get(pk=made["id"])
    assert (run.created_by, run.label, run.device_count) == (fleet.operator, "by hand", 1)
    assert run.controls["canary"] == 1
    for given in (
        ["--group", "aps"],
        ["--location", "roof"],
        ["--device", "ap-1", "--device", "srv"],
        ["--tag", "sold"],
    ):
        assert _run("--preview", "--organization", "North", *given)["eligible_count"] in (1, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--type", "reboot"), "targets"),
        (("--type", "reboot", "--saved", "nothing"), "saved"),
        (("--type", "reboot", "--organization", "Foreign"), "organization"),
        (("--type", "reboot", "--all-devices"), "all_devices"),
        (("--organization", "North"), "type"),
        (("--organization", "North", "--type", "custom", "--input", "{"), "input"),
        (("--organization", "North", "--type", "custom", "--input", '{"comand": "x"}'), "comand"),
        (("--organization", "North", "--type", "reboot", "--controls", '{"canry": 1}'), "canry"),
        (("--organization", "North", "--type", "reboot", "--controls", '{"type": "custom"}'), "controls"),
        (("--organization", "North", "--type", "reboot", "--expected-count", "9"), "count_changed"),
        (("--organization", "North", "--type", "reboot", "--digest", "0" * 64), "targets_changed"),
    ],
    ids=case,
)
def test_the_command_line_refuses_what_the_api_refuses(fleet: Fleet, arguments: Any, said: str) -> None:
    factories.organization(name="Foreign")
    with pytest.raises(CommandError, match=f'"{said}"'):
        _run(*arguments)
    assert not MassCommand.objects.exists()


def test_the_command_line_takes_secrets_from_stdin_and_needs_a_user(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"password": "new-Secret-1", "confirm_password": "new-Secret-1"}
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(secret)))
    made = _run("--organization", "North", "--type", "change_password", "--input", "-")
    assert MassCommand.objects.get(pk=made["id"]).secret_input()["password"] == "new-Secret-1"
    with pytest.raises(CommandError, match="no user nobody"):
        call_command("launch", "--user", "nobody", "--organization", "North", "--type", "reboot")
