"""The wizard's choice of devices: narrowed down, without some, found by search; and going back drops nothing."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from orchestrator.access import Role
from orchestrator.admin import drafts, pickers
from orchestrator.admin.drafts import Draft
from orchestrator.models import Command, Device, DeviceGroup, MassCommand, Organization, SavedTargets, User
from orchestrator.states import CommandStatus
from orchestrator.targeting import TargetFilter
from tests import factories, run_rows

pytestmark = pytest.mark.django_db

UPTIME = {"type": "custom", "custom__command": "uptime"}


@pytest.fixture
def organization() -> Organization:
    return factories.organization(name="North")


@pytest.fixture
def operator(client: Any, organization: Organization, outbox: Any) -> User:
    user = factories.user(organization=organization, role=Role.OPERATOR, is_staff=True)
    client.force_login(user)
    return user


@pytest.fixture
def fleet(organization: Organization) -> list[Device]:
    """Four devices, two by two in a group."""
    groups = [factories.group(organization=organization, name=f"floor {number}") for number in range(2)]
    key = factories.credential(organization=organization)
    return [
        factories.device(organization=organization, name=f"ap-{number}", group=groups[number // 2], credentials=[key],
                         platform=("openwrt", "linux")[number % 2], tags=["roof, south"] if number else [])
        for number in range(4)
    ]  # fmt: skip


@pytest.fixture
def prepare(operator: User) -> Callable[..., Draft]:
    """A stored draft."""

    def stored(**fields: Any) -> Draft:
        targets = TargetFilter(**fields.pop("targets"))
        draft = Draft(owner=operator.pk, targets=targets, **fields)
        drafts.add(draft)
        return draft

    return stored


def _step(name: str, draft: Draft) -> str:
    return reverse(f"admin:orchestrator_run_{name}", args=[draft.id])


def _stored(operator: User, draft: Draft) -> Draft:
    found = drafts.load(operator, draft.id)
    assert isinstance(found, Draft)
    return found


def _as_drawn(page: Any) -> dict[str, Any]:
    """What a browser would send back of the first step, untouched."""
    form, context = page.context["form"], page.context
    data = {name: form[name].value() for name in form.fields if form[name].value() not in (None, "", False)}
    for picker in [context["devices"], *context["excluded"]]:
        data |= {picker.name: [str(row.pk) for row in picker.picked]}
    return data


def test_attributes_and_exclusions_reach_the_run(
    client: Any, operator: User, organization: Organization, fleet: list[Device]
) -> None:
    data = {
        "scope": "filter", "organization": organization.pk, "name": "AP-*", "tags": "roof, south\r\n",
        "exclude_devices": [fleet[1].pk], "exclude_groups": [fleet[3].group_id],
    }  # fmt: skip
    new = reverse("admin:orchestrator_run_new")
    assert "No device matches" in str(client.post(new, data).context["form"].errors)
    reply = client.post(new, data | {"exclude_groups": [], "platform": "linux"})
    pk = reply.url.rstrip("/").split("/")[-2]
    client.post(reverse("admin:orchestrator_run_command", args=[pk]), UPTIME)
    review = reverse("admin:orchestrator_run_review", args=[pk])
    context = client.get(review).context
    client.post(review, {"digest": context["digest"], "revision": context["draft"].revision})
    run = MassCommand.objects.get()
    assert list(run.commands.values_list("device_name", flat=True)) == ["ap-3"]
    assert run.targets["exclude"] == {"devices": [str(fleet[1].pk)]}


def test_going_back_to_the_targets_shows_and_keeps_all_of_them(
    client: Any, operator: User, organization: Organization, fleet: list[Device], prepare: Any
) -> None:
    narrowed = {"platform": "openwrt", "name": "ap-?", "tags": ("roof, south",)}
    excluded = {"exclude_devices": (fleet[0].pk,), "exclude_groups": (fleet[0].group_id,)}
    picked = {"devices": (fleet[2].pk, fleet[3].pk), "group": fleet[2].group_id, "organization": organization.pk}
    for targets in ({"organization": organization.pk, "group": fleet[2].group_id}, picked):
        draft = prepare(targets=targets | narrowed | excluded)
        page = client.get(_step("targets", draft))
        assert page.context["form"].narrowed
        assert client.post(_step("targets", draft), _as_drawn(page)).status_code == 302
        assert _stored(operator, draft).targets == draft.targets


def test_a_saved_set_is_chosen_and_kept(
    client: Any, operator: User, organization: Organization, fleet: list[Device]
) -> None:
    saved = SavedTargets.objects.create(
        organization=organization, name="roofs", targets={"organization": str(organization.pk), "name": "ap-2"}
    )
    reply = client.post(reverse("admin:orchestrator_run_new"), {"scope": "filter", "saved": str(saved.pk)})
    draft = _stored(operator, Draft(owner=operator.pk, id=uuid.UUID(reply.url.rstrip("/").split("/")[-2])))
    assert draft.targets == TargetFilter(saved=saved.pk)
    page = client.get(_step("targets", draft))
    assert client.post(_step("targets", draft), _as_drawn(page)).status_code == 302
    assert _stored(operator, draft).targets == draft.targets
    client.post(_step("command", draft), UPTIME)
    assert [row["name"] for row in client.get(_step("review", draft)).context["rows"]] == ["ap-2"]


def test_too_many_exclusions_to_list_are_kept(client: Any, operator: User, prepare: Any, fleet: list[Device]) -> None:
    rows = [Device(organization=fleet[0].organization, name=f"x{number}", host="h") for number in range(201)]
    Device.objects.bulk_create(rows)
    targets = {"organization": fleet[0].organization_id, "exclude_devices": tuple(row.pk for row in rows)}
    draft = prepare(targets=targets)
    page = client.get(_step("targets", draft))
    assert "The 201 devices" in page.content.decode()
    client.post(_step("targets", draft), _as_drawn(page) | {"keep_exclude_devices": "1"})
    assert _stored(operator, draft).targets == draft.targets


def test_going_back_from_the_command_keeps_what_was_typed(
    client: Any, operator: User, organization: Organization, fleet: list[Device], prepare: Any
) -> None:
    draft = prepare(targets={"organization": organization.pk})
    typed = {"type": "change_password", "change_password__password": "half-typed", "label": "rotation", "notes": "x",
             "max_errors": "5", "canary": "nonsense", "back": "1"}  # fmt: skip
    reply = client.post(_step("command", draft), typed, follow=True)
    assert reply.redirect_chain[-1][0] == _step("targets", draft)
    assert "Not kept, because it can&#x27;t be: First try it on." in reply.content.decode()
    kept = _stored(operator, draft)
    assert (kept.type, kept.label, kept.notes, kept.controls) == ("change_password", "rotation", "x", {"max_errors": 5})
    assert kept.input["password"] == "half-typed"
    reply = client.get(_step("review", draft), follow=True)  # unfinished: the review leads back to it
    assert reply.redirect_chain[-1][0] == _step("command", draft)
    assert "Confirm password: The two passwords are not the same." in reply.content.decode()
    assert "half-typed" not in reply.content.decode()
    assert client.post(_step("command", draft), {"back": "1"}).url == _step("targets", draft)


def test_leaving_out_in_the_review_keeps_the_filter(
    client: Any, operator: User, organization: Organization, fleet: list[Device], prepare: Any
) -> None:
    draft = prepare(targets={"organization": organization.pk}, type="custom", input={"command": "uptime"})
    for device in fleet[:3]:
        revision = _stored(operator, draft).revision
        data = {"revision": revision, "exclude": "1", "leave_out": [device.pk]}
        assert client.post(_step("review", draft), data).status_code == 302
    targets = _stored(operator, draft).targets
    assert targets.organization == organization.pk
    assert set(targets.exclude_devices) == {device.pk for device in fleet[:3]}
    page = client.get(_step("review", draft))
    assert "3 devices left out." in page.content.decode()
    data = {"revision": _stored(operator, draft).revision, "exclude": "1", "leave_out": [fleet[3].pk]}
    assert "No device would be left." in client.post(_step("review", draft), data).content.decode()


def test_the_review_finds_devices_and_those_that_were_away(
    client: Any, organization: Organization, fleet: list[Device], prepare: Any
) -> None:
    earlier = run_rows.run({CommandStatus.UNREACHABLE: 1, CommandStatus.SUCCESS: 1}, organization=organization)
    for row, device in zip(earlier.commands.order_by("-status"), fleet[:2], strict=True):
        Command.objects.filter(pk=row.pk).update(device=device)
    Command.objects.create(device=fleet[0], organization=organization, type="custom", device_name="ap-0")  # still open
    draft = prepare(targets={"organization": organization.pk}, type="custom", input={"command": "uptime"})
    page = client.get(_step("review", draft), {"show": "offline"})
    assert [row["name"] for row in page.context["rows"]] == ["ap-0"]
    assert "1 of them could not be reached the last time." in page.content.decode()
    page = client.get(_step("review", draft), {"q": "AP-3"})
    assert [row["name"] for row in page.context["rows"]] == ["ap-3"]
    for nonsense in ({"show": "?"}, {"show": "skipped"}, {"page": "x"}, {"q": "\x00"}):
        assert client.get(_step("review", draft), nonsense).status_code == 200


def test_a_first_large_reboot_is_warned_of_until_one_succeeded_or_it_is_paced(
    client: Any, organization: Organization, prepare: Any, operator: User
) -> None:
    key = factories.credential(organization=organization)
    for number in range(21):
        factories.device(organization=organization, name=f"r{number}", credentials=[key])

    def warned(**fields: Any) -> bool:
        page = client.get(_step("review", prepare(targets={"organization": organization.pk}, type="reboot", **fields)))
        assert "21 devices restart nearly at the same time." in page.content.decode()
        return "So many were never restarted here before" in page.content.decode()

    assert warned()
    assert not warned(controls={"canary": 1})
    run_rows.run({CommandStatus.SUCCESS: 21}, type="reboot")  # of others
    assert warned()
    run_rows.run({CommandStatus.SUCCESS: 21}, organization=organization, type="reboot")
    assert not warned()


def test_many_groups_are_searched_instead_of_listed(
    client: Any, operator: User, organization: Organization, fleet: list[Device], prepare: Any,
    django_assert_max_num_queries: Any,
) -> None:  # fmt: skip
    DeviceGroup.objects.bulk_create(DeviceGroup(organization=organization, name=f"g{n:04}") for n in range(3_000))
    new = reverse("admin:orchestrator_run_new")
    with django_assert_max_num_queries(12):
        page = client.get(new, {"group": str(fleet[0].group_id)})
    assert "g0001" not in page.content.decode()
    assert 'value="floor 0 (North)"' in page.content.decode()

    def choose(text: Any) -> Any:
        reply = client.post(new, {"scope": "filter", "group": text})
        if reply.status_code == 200:
            return reply.context["form"].errors["group"][0]
        return _stored(
            operator, Draft(owner=operator.pk, id=uuid.UUID(reply.url.rstrip("/").split("/")[-2]))
        ).targets.group

    assert choose("floor 0 (North)") == choose("floor 0") == choose(str(fleet[0].group_id)) == fleet[0].group_id
    assert choose("floor") == "There is no group of this name. Choose one of those offered while you type."
    stranger = factories.group(name="theirs")
    assert "There is no group" in choose("theirs")
    assert "There is no group" in choose(str(stranger.pk))
    other = factories.organization(name="South")
    factories.group(organization=other, name="floor 0")
    operator.memberships.create(organization=other, role=Role.OPERATOR)
    assert choose("floor 0").startswith("Several have this name. Add its organization: floor 0 (")
    assert choose("floor 0 (North)") == fleet[0].group_id


def test_the_search_offers_own_rows_of_each_kind(
    client: Any, operator: User, organization: Organization, fleet: list[Device]
) -> None:
    factories.group(name="floor of others")
    here = reverse("admin:orchestrator_run_find")
    found = {kind: client.get(here, {"kind": kind, "q": "o"}).json()["results"] for kind in pickers._KINDS}
    assert [row["text"] for row in found["group"]] == ["floor 0 (North)", "floor 1 (North)"]
    assert [row["text"] for row in found["organization"]] == ["North"]
    assert (found["device"], found["location"], found["saved"]) == ([], [], [])
    assert client.get(here, {"kind": "credential"}).status_code == 404


def test_a_connection_is_tested_from_the_list_and_the_page_of_devices(
    client: Any, operator: User, fleet: list[Device]
) -> None:
    run_rows.run({CommandStatus.UNREACHABLE: 1}, organization=fleet[0].organization)
    Command.objects.update(device=fleet[0])
    page = client.get(reverse("admin:orchestrator_device_change", args=[fleet[0].pk])).content.decode()
    assert "custom command: unreachable" in page
    assert "Connection refused." in page
    data = {"action": "test_these", "_selected_action": [str(device.pk) for device in fleet[:2]]}
    review = client.post(reverse("admin:orchestrator_device_changelist"), data).url
    context = client.get(review).context
    client.post(review, {"digest": context["digest"], "revision": context["draft"].revision})
    run = MassCommand.objects.get(type="ping")
    assert run.device_count == 2
