"""Rotation of the keys that seal stored secrets, while others change them."""

import ast
import os
import threading
import uuid
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from orchestrator import resealing
from orchestrator.admin import drafts
from orchestrator.models import AuditEntry, Credential, CredentialSecrets, MassCommand, Schedule, Webhook
from orchestrator.models.sealed import sealed_columns
from orchestrator.secrets import key_of, open_sealed, seal
from orchestrator.settings import BASE_DIR
from tests import factories

pytestmark = [pytest.mark.database]

OLD, NEW = os.urandom(32), os.urandom(32)
SEALERS = {"models/sealed.py", "admin/drafts.py", "resealing.py"}  # each of their columns is registered
TRAVELLERS = {"admin/device_import.py"}  # in a hidden field of a page, in no row: after a rotation one uploads again
SECRET = {"password": "n3w-Secret"}


@pytest.fixture(autouse=True)
def ring(settings: Any) -> Any:
    """The old key alone; ``ring.SECRET_KEY_RING`` may be changed."""
    settings.SECRET_KEY_RING = {"old": OLD}
    return settings


def rotate(*words: str) -> str:
    """What the command says."""
    out = StringIO()
    call_command("rotate_keys", *words, stdout=out, no_color=True)
    return out.getvalue()


def one_of_each() -> tuple[Credential, MassCommand, Schedule, Webhook, uuid.UUID]:
    """A row of each table that seals."""
    credential = factories.credential()
    run = MassCommand(type="change_password", device_count=1, queued_count=1)
    run.set_secret_input(SECRET)
    run.save()
    schedule = Schedule(name="nightly", type="change_password", cron="0 3 * * *", next_run=timezone.now())
    schedule.set_secret_input(SECRET)
    schedule.save()
    draft = drafts.add(drafts.Draft(owner=factories.user().pk, type="change_password", input=SECRET))
    return credential, run, schedule, factories.webhook(), draft


@pytest.mark.django_db
def test_everything_sealed_is_sealed_anew_and_the_old_key_can_go(ring: Any) -> None:
    credential, run, schedule, webhook, draft = one_of_each()
    secrets = webhook.signing_secrets()
    ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
    assert "Key old only opens: 5 secrets need it." in rotate("--check")
    assert Credential.objects.get().sealed == credential.sealed  # a check changes nothing
    said = rotate()
    assert {f"{column}: 1 sealed anew" for column in sealed_columns()} <= set(said.splitlines())
    assert "Key new seals: 5 secrets.\nKey old only opens: no longer needed." in said
    ring.SECRET_KEY_RING = {"new": NEW}
    for row in (credential, run, schedule, webhook):
        row.refresh_from_db()
    assert webhook.signing_secrets() == secrets
    assert credential.secrets().password == "old-Secret1"
    assert run.secret_input() == schedule.secret_input() == SECRET
    stored = Session.objects.get(session_key=f"draft{draft.hex}").session_data
    assert drafts.Draft.opened(draft, stored).input == SECRET
    assert ": 0 sealed anew" in rotate()
    entries = AuditEntry.objects.filter(action="keys.rotate", object_name="new")
    assert sorted(entry.details["resealed"]["credential.sealed"] for entry in entries) == [0, 1]


@pytest.mark.django_db
def test_sessions_and_launched_drafts_are_left_alone(ring: Any) -> None:
    day = timezone.now() + timedelta(days=1)
    for key, text in (("s" * 32, "1$old$AAAA"), (f"draft{uuid.uuid4().hex}", f"claimed:{uuid.uuid4()}")):
        Session.objects.create(session_key=key, session_data=text, expire_date=day)
    ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
    rotate()
    assert {row.session_data[:8] for row in Session.objects.all()} == {"1$old$AA", "claimed:"}


@pytest.mark.django_db
def test_what_no_key_opens_is_named_and_the_rest_is_sealed_anew(ring: Any) -> None:
    good = factories.credential()
    ring.SECRET_KEY_RING = {"lost": os.urandom(32)}
    bad = factories.credential()
    ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
    out = StringIO()
    with pytest.raises(CommandError, match="1 secrets can't be opened"):
        call_command("rotate_keys", stdout=out, no_color=True)
    assert f"credential.sealed: that of {bad.pk} can't be opened" in out.getvalue()
    assert "Key lost is not in the ring: 1 secrets need it." in out.getvalue()
    good.refresh_from_db()
    assert key_of(good.sealed) == "new"


@pytest.mark.django_db
def test_a_rotation_that_was_cut_goes_on_where_it_was(ring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        factories.credential()
    ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
    monkeypatch.setattr(resealing, "BATCH", 2)
    honest, calls = seal, []

    def cut(*args: Any, **options: Any) -> str:
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return honest(*args, **options)

    monkeypatch.setattr(resealing, "seal", cut)
    with pytest.raises(KeyboardInterrupt):
        rotate()
    assert resealing.keys_in_use()["credential.sealed"] == {"new": 2, "old": 3}  # the batch that was cut is whole
    monkeypatch.setattr(resealing, "seal", honest)
    assert "credential.sealed: 3 sealed anew" in rotate()


@pytest.mark.django_db
def test_who_changes_a_secret_between_read_and_write_wins(ring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    credential = factories.credential()
    ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
    honest = open_sealed

    def overtaken(sealed: str, *, row: str) -> dict[str, str]:
        values = honest(sealed, row=row)
        other = Credential.objects.get(pk=credential.pk)
        if other.secrets().password == "old-Secret1":
            ring.SECRET_KEY_RING = {"old": OLD, "new": NEW}  # a process that was not restarted yet
            other.set_secrets(CredentialSecrets(password="changed-Meanwhile1"))
            other.save(update_fields=("sealed",))
            ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
        return values

    monkeypatch.setattr(resealing, "open_sealed", overtaken)
    assert "credential.sealed: 1 sealed anew, 1 were changed by others meanwhile" in rotate()
    credential.refresh_from_db()
    assert credential.secrets().password == "changed-Meanwhile1"
    assert key_of(credential.sealed) == "new"


@pytest.mark.django_db(transaction=True)
def test_no_change_is_lost_while_credentials_change_and_keys_rotate(ring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [factories.credential() for _ in range(30)]
    monkeypatch.setattr(resealing, "BATCH", 3)
    ring.SECRET_KEY_RING = {"new": NEW, "old": OLD}
    written: dict[uuid.UUID, str] = {row.pk: "old-Secret1" for row in rows}
    over, errors = threading.Event(), []

    def change() -> None:
        number = 0
        try:
            while not over.is_set() or number < 60:
                row = Credential.objects.get(pk=rows[number % len(rows)].pk)
                row.set_secrets(CredentialSecrets(password=f"Secret-{number}"))
                row.save(update_fields=("sealed", "has_password", "modified"))
                written[row.pk] = f"Secret-{number}"
                number += 1
        except Exception as error:  # noqa: BLE001 - a thread's errors are shown by the test
            errors.append(error)
        finally:
            connection.close()

    writer = threading.Thread(target=change)
    writer.start()
    try:
        said = rotate()
    finally:
        over.set()
        writer.join()
    assert not errors
    assert "Key old only opens: no longer needed." in said
    ring.SECRET_KEY_RING = {"new": NEW}
    assert {row.pk: row.secrets().password for row in Credential.objects.all()} == written


def test_nothing_seals_that_a_rotation_does_not_know() -> None:
    sealers = set()
    for path in (BASE_DIR / "orchestrator").rglob("*.py"):
        imported = [x for x in ast.walk(ast.parse(path.read_text())) if isinstance(x, ast.ImportFrom)]
        names = {name.name for x in imported if x.module == "orchestrator.secrets" for name in x.names}
        if "seal" in names:
            sealers.add(str(path.relative_to(BASE_DIR / "orchestrator")))
    assert sealers == SEALERS | TRAVELLERS
    assert {str(column) for column in sealed_columns()} >= {
        "credential.sealed", "masscommand.sealed_input", "schedule.sealed_input", "session.session_data"
    }  # fmt: skip
