"""The secrets of a run end with it, on every path; while it lasts, no output may show any of them."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from orchestrator import actions, jobs, planning, recovery
from orchestrator.models import Command, CredentialSecrets, Device, MassCommand, Slice
from orchestrator.pacing import advance
from orchestrator.settling import Ending, settle
from orchestrator.states import RUN_FINISHED
from tests import factories
from tests.integration.test_recording import launch, take
from tests.integration.test_recovery import expire

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

NEW = {"password": "n3w-Secret", "confirm_password": "n3w-Secret"}


@pytest.fixture
def device() -> Device:
    """A device with two credentials."""
    organization = factories.organization()
    second = factories.credential(organization=organization)
    second.set_secrets(CredentialSecrets(password="second-Secret", become_password="r00t-Secret"))
    second.save()
    return factories.device(
        organization=organization,
        host_key="ssh-ed25519 AAAA",
        credentials=[factories.credential(organization=organization, password="first-Secret"), second],
    )


@pytest.fixture
def run(device: Device, outbox: Any) -> MassCommand:
    """A launched password change."""
    made = launch(device.organization_id, type="change_password", input=NEW)
    assert made.secret_input() == NEW
    return made


def test_no_credential_of_a_device_is_shown_whichever_is_tried(run: MassCommand) -> None:
    slice_, _, _ = take(run)
    plan = planning.plan(slice_)
    request = plan.request(plan.targets(0), ident="x")
    assert [target.login.password for target in request.targets] == ["first-Secret"]
    assert request.secrets == {"n3w-Secret", "first-Secret", "second-Secret", "r00t-Secret"}
    assert not any(secret in repr((plan, request)) for secret in request.secrets)


def cancel_waiting(run: MassCommand) -> None:
    """Nobody has started it."""
    actions.cancel(actor=factories.superuser(), run=run)


def miss_the_deadline(run: MassCommand) -> None:
    """Its time is over before anything starts."""
    MassCommand.objects.filter(pk=run.pk).update(deadline=timezone.now() - timedelta(seconds=1), status="running")
    advance(run.pk)


def delete_the_device(run: MassCommand) -> None:
    """Nothing is left to do when the worker comes."""
    Device.objects.all().delete()
    jobs.run_slice(str(run.slices.get().pk), 1)


def die(run: MassCommand) -> None:
    """The worker dies while Ansible runs."""
    slice_, lease, _ = take(run)
    assert Slice.objects.spawn(slice_.pk, lease=lease)
    expire(slice_)
    recovery.recover()


def die_cancelled(run: MassCommand) -> None:
    """The worker dies after a cancel, before Ansible runs."""
    slice_, _, _ = take(run)
    actions.cancel(actor=factories.superuser(), run=run)
    expire(slice_)
    recovery.recover()


def die_and_lose_the_key(run: MassCommand) -> None:
    """The worker dies, and the key that has sealed the secrets is gone."""
    from django.conf import settings

    ring = settings.SECRET_KEY_RING
    settings.SECRET_KEY_RING = {"other": os.urandom(32)}
    try:
        die(run)
    finally:
        settings.SECRET_KEY_RING = ring


def break_the_runner(run: MassCommand) -> None:
    """ansible-runner can't even be started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.runner.run", lambda *_, **__: 1 / 0)
        jobs.run_slice(str(run.slices.get().pk), 1)


def forget_the_end(run: MassCommand) -> None:
    """Its last device has ended, and whoever wrote that died before it ended the run."""
    Command.objects.filter(mass_command=run).update(status="success", finished=timezone.now())
    MassCommand.objects.filter(pk=run.pk).update(queued_count=0, success_count=1)
    recovery.recover()


def end(ending: Ending) -> Callable[[MassCommand], None]:
    """A worker ends its slice so."""

    def settle_so(run: MassCommand) -> None:
        slice_, lease, _ = take(run)
        assert settle(slice_, lease=lease, ending=ending)

    settle_so.__name__ = ending.value
    return settle_so


PATHS = [
    cancel_waiting, miss_the_deadline, delete_the_device, die, die_cancelled, die_and_lose_the_key, break_the_runner,
    forget_the_end, *(end(ending) for ending in Ending if ending != Ending.PAUSED),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_the_secrets_of_a_run_end_with_it_on_every_path(run: MassCommand, path: Callable[[MassCommand], None]) -> None:
    path(run)
    run.refresh_from_db()
    assert run.status in RUN_FINISHED
    assert run.sealed_input == ""


def test_a_finished_run_with_secrets_is_refused_by_the_database(run: MassCommand) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        MassCommand.objects.filter(pk=run.pk).update(status="failed", finished=timezone.now())
