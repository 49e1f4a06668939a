"""A run that is being prepared: what the wizard's steps have gathered, until it is launched or a day has passed.

Each draft is one row of the session table, under a key of its own, sealed as a whole: the password of a run to come
is as little to be read there as anywhere.  A draft is launched by whoever replaces its text first, so that a second
click, tab or worker finds that it was done.
"""

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Self

from django.conf import settings
from django.contrib.sessions.models import Session
from django.http import Http404
from django.utils import timezone

from orchestrator import catalogue
from orchestrator.actions import LaunchRequest
from orchestrator.admin.wizard_controls import controls_of
from orchestrator.exceptions import SecretUnreadableError
from orchestrator.models import MassCommand, User
from orchestrator.models.sealed import SealedColumn, register
from orchestrator.secrets import open_sealed, seal
from orchestrator.targeting import TargetFilter

_PREFIX: Final = "draft"  # with 32 hexadecimal digits it fits a session key; as a cookie it opens nothing
_CLAIMED: Final = "claimed:"

register(SealedColumn(Session, "session_data", name=str, where={"session_key__startswith": _PREFIX}))


@dataclass(frozen=True, slots=True)
class Draft:
    """What was chosen so far.  ``stored`` is its text in the database when it was read."""

    owner: uuid.UUID
    targets: TargetFilter = field(default_factory=TargetFilter)
    type: str = ""
    playbook: str = ""  # its name in the catalogue
    input: dict[str, Any] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = ()  # the secrets of the input, by the schema of when they were typed
    label: str = ""
    notes: str = ""
    controls: dict[str, Any] = field(default_factory=dict)  # as wizard_controls.py gives them
    parent: uuid.UUID | None = None  # the run whose devices are tried again
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    stored: str = field(default="", repr=False)

    @property
    def revision(self) -> str:
        """What a review was made of; another one after each change."""
        return hashlib.sha256(self.stored.encode()).hexdigest()[:32]

    @property
    def secret_names(self) -> frozenset[str]:
        """The parts of the input that are never shown."""
        named = catalogue.secret_names(self.type, self.playbook) if self.type else frozenset()
        return named | frozenset(self.hidden)

    def request(self, digest: str) -> LaunchRequest:
        """The run that it describes, bound to the previewed set."""
        return LaunchRequest(
            type=self.type,
            playbook=self.playbook,
            input=self.input,
            targets=self.targets,
            label=self.label,
            notes=self.notes,
            digest=digest,
            controls=controls_of(self.controls),
            parent=MassCommand.objects.filter(pk=self.parent).first() if self.parent else None,
        )

    def sealed(self) -> str:
        """Its text for the database."""
        values = asdict(replace(self, stored=""))
        values |= {"owner": str(self.owner), "id": str(self.id), "targets": self.targets.as_json()}
        values["parent"] = str(self.parent) if self.parent else None
        return seal({"draft": json.dumps(values)}, row=_key(self.id))

    @classmethod
    def opened(cls, pk: uuid.UUID, stored: str) -> Self:
        """The draft of that text."""
        values: dict[str, Any] = json.loads(open_sealed(stored, row=_key(pk))["draft"])
        values |= {"id": pk, "owner": uuid.UUID(values["owner"]), "targets": TargetFilter.from_json(values["targets"])}
        values["parent"] = uuid.UUID(values["parent"]) if values["parent"] else None
        return cls(**values | {"stored": stored, "hidden": tuple(values.get("hidden", ()))})


@dataclass(frozen=True, slots=True)
class Submitted:
    """What is left of a draft once it was launched; ``run`` is None until the launch has ended."""

    run: uuid.UUID | None


def _key(pk: uuid.UUID) -> str:
    return f"{_PREFIX}{pk.hex}"


def add(draft: Draft) -> uuid.UUID:
    """Store a new draft, and clear away what nobody finished."""
    now = timezone.now()
    Session.objects.filter(session_key__startswith=_PREFIX, expire_date__lt=now).delete()
    Session.objects.create(
        session_key=_key(draft.id),
        session_data=draft.sealed(),
        expire_date=now + timedelta(hours=settings.PREVIEW_HOURS),
    )
    return draft.id


def load(user: Any, pk: uuid.UUID) -> Draft | Submitted:
    """The user's draft, or what became of it.

    Raises:
        Http404: there is none, it is too old, or it is somebody else's.
    """
    row = Session.objects.filter(session_key=_key(pk), expire_date__gte=timezone.now()).first()
    if row is None:
        raise Http404
    if row.session_data.startswith(_CLAIMED):
        run = row.session_data.removeprefix(_CLAIMED)
        return Submitted(uuid.UUID(run) if run else None)
    try:
        draft = Draft.opened(pk, row.session_data)
    except SecretUnreadableError as error:  # the key was taken out of the ring meanwhile
        raise Http404 from error
    if not isinstance(user, User) or draft.owner != user.pk:
        raise Http404
    return draft


def _swap(draft: Draft, text: str) -> bool:
    changed = Session.objects.filter(session_key=_key(draft.id), session_data=draft.stored)
    return bool(changed.update(session_data=text))


def save(draft: Draft) -> bool:
    """Store a change to a draft; False when it was changed or launched meanwhile."""
    return _swap(draft, draft.sealed())


def claim(draft: Draft) -> bool:
    """Take the right to launch it; False for everybody but the first."""
    return _swap(draft, _CLAIMED)


def settle(draft: Draft, run: uuid.UUID) -> None:
    """Say which run it has become."""
    Session.objects.filter(session_key=_key(draft.id)).update(session_data=f"{_CLAIMED}{run}")


def release(draft: Draft) -> None:
    """Give it back: nothing was launched."""
    Session.objects.filter(session_key=_key(draft.id), session_data=_CLAIMED).update(session_data=draft.stored)
