"""From a filter to the devices it means: who is eligible, who is not and why.

``resolve`` checks the filter against the rights of who asks and answers a ``TargetSet``: a lazy set, read in a
constant number of queries and never held in memory.  An empty selection never means "all".
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from django.db import models
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Value, When

from orchestrator.access import Access, Right
from orchestrator.exceptions import InvalidFieldError, NotPermittedError
from orchestrator.models import Device, DeviceCredential, DeviceGroup, Location, Organization, SavedTargets

REASONS: Final[Mapping[str, str]] = {
    "deleted": "The device was deleted after the launch.",
    "moved": "The device was moved to another organization after the launch.",
    "inactive": "The device is deactivated.",
    "organization_inactive": "The organization is deactivated.",
    "type_forbidden": "The organization does not allow this command type.",
    "playbook_forbidden": "The organization does not allow this playbook.",
    "outside_group": "The device was picked, but it is not in the group of the filter.",
    "outside_location": "The device was picked, but it is not at the location of the filter.",
    "outside_platform": "The device was picked, but it is not of the platform of the filter.",
    "outside_name": "The device was picked, but its name does not match the filter.",
    "outside_saved": "The device was picked, but it is not in the saved set of the filter.",
    "outside_tags": "The device was picked, but it does not have all tags of the filter.",
    "no_credential": "The device has no credential.",
}
MAX_PICKED: Final = 20_000  # devices named one by one; more are better said by a filter
_CHUNK: Final = 5_000  # rows read at a time
_ROWS: Final = ("organization", "group", "location", "saved")  # what a filter names by an id
_LISTED: Final = 5  # unknown ids named in an error
_NOTHING_PICKED: Final = "No device was picked. An empty list never means all devices."


@dataclass(frozen=True, slots=True)
class TargetFilter:
    """What the user named.  Everything given must hold; ``devices`` are taken as given.

    ``name`` is a pattern with * and ?; a device must have all of ``tags``; what is excluded is never a target.
    ``saved`` is a saved set, which means what its filter means at that moment.
    """

    organization: uuid.UUID | None = None
    group: uuid.UUID | None = None
    location: uuid.UUID | None = None
    saved: uuid.UUID | None = None
    devices: tuple[uuid.UUID, ...] | None = None
    all_devices: bool = False
    platform: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    exclude_devices: tuple[uuid.UUID, ...] = ()
    exclude_groups: tuple[uuid.UUID, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The filter as it is stored and shown; only what was given."""
        given: dict[str, Any] = {name: str(value) for name in _ROWS if (value := getattr(self, name))}
        if self.devices is not None:
            given["devices"] = [str(device) for device in self.devices]
        if self.all_devices:
            given["all_devices"] = True
        given |= {name: value for name in ("platform", "name") if (value := getattr(self, name))}
        if self.tags:
            given["tags"] = list(self.tags)
        excluded = {"devices": self.exclude_devices, "groups": self.exclude_groups}
        if any(excluded.values()):
            given["exclude"] = {name: [str(pk) for pk in ids] for name, ids in excluded.items() if ids}
        return given

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The filter that ``as_json`` gave."""
        ids = {name: uuid.UUID(given[name]) for name in _ROWS if name in given}
        devices = tuple(uuid.UUID(pk) for pk in given["devices"]) if "devices" in given else None
        excluded = given.get("exclude", {})
        return cls(
            **ids,
            devices=devices,
            all_devices=given.get("all_devices", False),
            platform=given.get("platform", ""),
            name=given.get("name", ""),
            tags=tuple(given.get("tags", ())),
            exclude_devices=tuple(uuid.UUID(pk) for pk in excluded.get("devices", ())),
            exclude_groups=tuple(uuid.UUID(pk) for pk in excluded.get("groups", ())),
        )

    @property
    def everything(self) -> bool:
        """Whether nothing but ``all_devices`` says of which organizations it means devices."""
        return self.all_devices and self.devices is None and not any(getattr(self, name) for name in _ROWS)

    @property
    def attributes(self) -> dict[str, Q]:
        """What was said of the devices themselves: the name of each field given, with its condition."""
        conditions = {"platform": Q(platform=self.platform), "name": Q(name__glob=self.name)}
        if self.tags:
            conditions["tags"] = Q(tags__holds_all=list(self.tags))
        return {name: condition for name, condition in conditions.items() if getattr(self, name)}


@dataclass(frozen=True, slots=True)
class TargetSet:
    """The devices that a filter means, each annotated with ``ineligible``: a key of ``REASONS``, or empty."""

    organization: Organization | None  # of all of them; None: system-wide
    group: DeviceGroup | None
    location: Location | None
    rows: "models.QuerySet[Any]"

    def totals(self) -> tuple[int, int]:
        """The number of devices, and how many of them are eligible."""
        found = self.rows.aggregate(count=Count("pk"), eligible=Count("pk", filter=Q(ineligible="")))
        return found["count"], found["eligible"]

    def reasons(self) -> dict[str, int]:
        """The number of devices for each reason not to be eligible, and for the empty one: those that are."""
        counted = self.rows.order_by().values("ineligible").annotate(count=Count("pk")).order_by("-count")
        return {row["ineligible"]: row["count"] for row in counted}

    def breakdown(self) -> dict[str, list[dict[str, Any]]]:
        """Devices by organization, group and location: ``id``, ``name``, ``count``, ``eligible_count``."""
        return {name: self._by(name) for name in ("organization", "group", "location")}

    def _by(self, name: str) -> list[dict[str, Any]]:
        grouped = self.rows.order_by().values(key=F(f"{name}_id"), title=F(f"{name}__name"))
        counted = grouped.annotate(count=Count("pk"), eligible=Count("pk", filter=Q(ineligible=""))).order_by(
            F("title").asc(nulls_last=True), "key"
        )
        return [
            {"id": row["key"], "name": row["title"], "count": row["count"], "eligible_count": row["eligible"]}
            for row in counted
        ]

    def members(self) -> Iterator[tuple[uuid.UUID, bool]]:
        """(device id, eligible) in the order of ids, read in chunks."""
        pairs = self.rows.order_by("pk").values_list("pk", "ineligible")
        for pk, ineligible in pairs.iterator(chunk_size=_CHUNK):
            yield pk, not ineligible


def resolve(targets: TargetFilter, *, access: Access, command_type: str = "", playbook: str = "") -> TargetSet:
    """The devices that the filter means for a user with these rights.

    Raises:
        InvalidFieldError: an object that does not exist for this user, a contradiction, nothing named, or a set that
            only superusers may run on.
        NotPermittedError: the user may see the targets, but not run commands on them.
    """
    targets = _anchored(targets, access)
    saved = _named(SavedTargets, targets.saved, "saved", access)
    organization = _named(Organization, targets.organization, "organization", access) or (saved and saved.organization)
    group = _named(DeviceGroup, targets.group, "group", access)
    location = _named(Location, targets.location, "location", access)
    for field, row in (("saved", saved), ("group", group), ("location", location)):
        if organization and row and row.organization_id != organization.pk:
            raise InvalidFieldError(field, f"This {_called(field)} belongs to another organization than the one given.")
    if organization and command_type and not organization.allows(command_type):
        raise InvalidFieldError("type", f'"{command_type}" is not allowed in this organization.')
    if organization and not organization.allows_playbook(playbook):
        raise InvalidFieldError("playbook", f'"{playbook}" is not allowed in this organization.')
    rows = access.visible(Device.objects.all())
    reasons = _common_reasons(command_type, playbook)
    if targets.devices is not None:
        rows = _picked(rows, targets.devices, organization)
        reasons = [*_outside(group, location, saved, targets), *reasons]
    else:
        conditions = {"organization": organization, "group": group, "location": location}
        rows = rows.filter(**{name: row for name, row in conditions.items() if row is not None})
        rows = rows.filter(*targets.attributes.values(), *([saved_condition(saved)] if saved else ()))
    owner = organization or _owner(group, location) or _owner_of_picked(rows, targets)
    _permit(owner, access)
    rows = _without_excluded(rows, targets, access)
    ineligible = Case(*reasons, default=Value(""), output_field=models.CharField())
    return TargetSet(organization=owner, group=group, location=location, rows=rows.annotate(ineligible=ineligible))


def selected(targets: TargetFilter, *, access: Access) -> "models.QuerySet[Device]":
    """The devices that the filter means to somebody who only reads, such as an inventory; nothing is run on them.

    All that is given must hold, for picked devices too.  Nothing given means every device that exists for the user.

    Raises:
        InvalidFieldError: an object that does not exist for this user, or an empty list of devices.
    """
    if targets.devices is not None and not targets.devices:
        raise InvalidFieldError("devices", _NOTHING_PICKED)
    conditions = {
        "organization": _named(Organization, targets.organization, "organization", access),
        "group": _named(DeviceGroup, targets.group, "group", access),
        "location": _named(Location, targets.location, "location", access),
    }
    rows = access.visible(Device.objects.all())
    if targets.devices is not None:
        rows = _picked(rows, targets.devices, None)
    rows = rows.filter(**{name: row for name, row in conditions.items() if row is not None})
    if saved := _named(SavedTargets, targets.saved, "saved", access):
        rows = rows.filter(saved_condition(saved))
    return _without_excluded(rows.filter(*targets.attributes.values()), targets, access)


def saved_condition(saved: SavedTargets) -> Q:
    """Which devices the filter of a saved set means now.  A device that was deleted is no longer in it.

    Raises:
        InvalidFieldError: a group or location of the filter was deleted: the set would now be another one, and a
            larger one where the group was excluded.
    """
    targets, own = TargetFilter.from_json(saved.targets), {"organization": saved.organization_id}
    groups = {pk for pk in (targets.group, *targets.exclude_groups) if pk}
    if DeviceGroup.objects.filter(pk__in=groups, **own).count() != len(groups):
        raise InvalidFieldError("saved", f'A group of the saved set "{saved}" was deleted. Change the set.')
    if targets.location and not Location.objects.filter(pk=targets.location, **own).exists():
        raise InvalidFieldError("saved", f'The location of the saved set "{saved}" was deleted. Change the set.')
    named = {name: pk for name in ("group", "location") if (pk := getattr(targets, name))}
    condition = Q(*targets.attributes.values(), **own, **named)
    if targets.devices is not None:
        condition &= Q(pk__in=targets.devices)
    if targets.exclude_devices:
        condition &= ~Q(pk__in=targets.exclude_devices)
    return condition & ~Q(group__in=targets.exclude_groups) if targets.exclude_groups else condition


def check_saved(targets: TargetFilter, *, organization: Organization, access: Access) -> None:
    """Whether this filter can be saved as a set of the organization by a user with these rights.

    Raises:
        InvalidFieldError: see ``resolve``; or it names a saved set, all devices, or nothing at all.
        NotPermittedError: the user may not run commands there.
    """
    for field in ("saved", "all_devices"):
        if getattr(targets, field):
            raise InvalidFieldError(field, "A saved set is made of what its organization has, and of no other set.")
    if (
        not (targets.organization or targets.group or targets.location or targets.attributes)
        and targets.devices is None
    ):
        raise InvalidFieldError(
            "targets", "Say which devices; the organization, named in the filter too, means all devices in it."
        )
    resolve(replace(targets, organization=targets.organization or organization.pk), access=access)
    if targets.organization not in (None, organization.pk):
        raise InvalidFieldError("organization", "This is another organization than that of the set.")
    own = DeviceGroup.objects.filter(pk__in=targets.exclude_groups, organization=organization)
    if own.count() != len(set(targets.exclude_groups)):
        raise InvalidFieldError("exclude", "All groups must belong to the organization of the set.")


def _anchored(targets: TargetFilter, access: Access) -> TargetFilter:
    """The filter within what it may mean; one of attributes alone means the one organization the user may run in."""
    if targets.devices is not None and not targets.devices:
        raise InvalidFieldError("devices", _NOTHING_PICKED)
    if any(getattr(targets, name) for name in _ROWS) or targets.devices is not None:
        return targets
    if targets.all_devices and not access.everything:
        raise InvalidFieldError("all_devices", "Only superusers may run on all devices. Name an organization.")
    if targets.all_devices:
        return targets
    own = access.organizations(Right.RUN)
    if targets.attributes and not access.everything and len(own) == 1:
        return replace(targets, organization=next(iter(own)))
    raise InvalidFieldError(
        "targets",
        "Name at least one of organization, group, location, saved or devices. "
        "Only superusers may run on all devices, with all_devices.",
    )


def _called(field: str) -> str:
    return "saved target set" if field == "saved" else field


def _named(model: Any, pk: uuid.UUID | None, field: str, access: Access) -> Any:
    if pk is None:
        return None
    lookup = "pk" if model is Organization else "organization"
    row = access.visible(model.objects.filter(pk=pk), organization=lookup).first()
    if row is None:
        raise InvalidFieldError(field, f"There is no such {_called(field)}.")
    return row


def _picked(
    rows: "models.QuerySet[Device]", devices: tuple[uuid.UUID, ...], organization: Organization | None
) -> "models.QuerySet[Device]":
    wanted = set(devices)
    if len(wanted) > MAX_PICKED:
        raise InvalidFieldError("devices", f"Pick at most {MAX_PICKED} devices, or use a filter.")
    picked = rows.filter(pk__in=wanted)
    found = dict(picked.values_list("pk", "organization_id"))
    _refuse_missing("devices", "device", wanted - found.keys())
    if organization and any(owner != organization.pk for owner in found.values()):
        raise InvalidFieldError("devices", "All devices must belong to the organization given.")
    return picked


def _refuse_missing(field: str, kind: str, pks: Iterable[uuid.UUID]) -> None:
    missing = sorted(str(pk) for pk in pks)
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise InvalidFieldError(field, f"There is no such {kind}: {', '.join(missing[:_LISTED])}{more}.")


def _without_excluded(
    rows: "models.QuerySet[Device]", targets: TargetFilter, access: Access
) -> "models.QuerySet[Device]":
    """The rest; an id that means nothing is refused, for who mistypes it would run on what was to be spared."""
    devices, groups = set(targets.exclude_devices), set(targets.exclude_groups)
    if len(devices) > MAX_PICKED:
        raise InvalidFieldError("exclude", f"Exclude at most {MAX_PICKED} devices, or groups of them.")
    if devices:
        visible = access.visible(Device.objects.filter(pk__in=devices))
        _refuse_missing("exclude", "device", devices - set(visible.values_list("pk", flat=True)))
        rows = rows.exclude(pk__in=devices)
    if groups:
        known = access.visible(DeviceGroup.objects.filter(pk__in=groups))
        _refuse_missing("exclude", "group", groups - set(known.values_list("pk", flat=True)))
        rows = rows.exclude(group__in=groups)
    return rows


def _owner(group: DeviceGroup | None, location: Location | None) -> Organization | None:
    row = group or location
    return row.organization if row else None


def _owner_of_picked(rows: "models.QuerySet[Device]", targets: TargetFilter) -> Organization | None:
    """The organization of picked devices if it is one; all devices belong to the system, however many it has."""
    if targets.devices is None:
        return None
    owners = list(Organization.objects.filter(pk__in=rows.order_by().values("organization")).order_by()[:2])
    return owners[0] if len(owners) == 1 else None


def _permit(owner: Organization | None, access: Access) -> None:
    if owner is None and not access.everything:
        raise InvalidFieldError("devices", "Only superusers may run over several organizations.")
    if not access.can(Right.RUN, owner.pk if owner else None):
        raise NotPermittedError("Your role in this organization does not allow to run commands.")


def _outside(
    group: DeviceGroup | None, location: Location | None, saved: SavedTargets | None, targets: TargetFilter
) -> list[When]:
    reasons: list[When] = []
    if saved:
        inside = Exists(Device.objects.filter(saved_condition(saved), pk=OuterRef("pk")))
        reasons.append(When(~inside, then=Value("outside_saved")))
    if group:
        reasons.append(When(~Q(group=group) | Q(group=None), then=Value("outside_group")))
    if location:
        reasons.append(When(~Q(location=location) | Q(location=None), then=Value("outside_location")))
    for name, condition in targets.attributes.items():
        reasons.append(When(~condition, then=Value(f"outside_{name}")))
    return reasons


def _common_reasons(command_type: str, playbook: str) -> list[When]:
    reasons = [
        When(is_active=False, then=Value("inactive")),
        When(organization__is_active=False, then=Value("organization_inactive")),
    ]
    if command_type:
        limited = Organization.objects.filter(allowed_types__isnull=False)
        forbidding = [row.pk for row in limited if not row.allows(command_type)]
        if forbidding:
            reasons.append(When(organization__in=forbidding, then=Value("type_forbidden")))
    if playbook:
        limited = Organization.objects.filter(allowed_playbooks__isnull=False)
        forbidding = [row.pk for row in limited if not row.allows_playbook(playbook)]
        if forbidding:
            reasons.append(When(organization__in=forbidding, then=Value("playbook_forbidden")))
    without = ~Exists(DeviceCredential.objects.filter(device=OuterRef("pk")))
    return [*reasons, When(without, then=Value("no_credential"))]
