"""Results are kept as long as their organization wants, and no longer."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from orchestrator.models import Command, MassCommand
from orchestrator.retention import delete_old
from tests import factories
from tests.integration.test_recording import launch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


def old_run(keep_days: int | None, *, age: int, finished: bool = True) -> MassCommand:
    """A run that ended so many days ago, in an organization that keeps results for so many."""
    organization = factories.organization(keep_days=keep_days)
    factories.device(organization=organization)
    run = launch(organization.pk)
    if finished:
        when = timezone.now() - timedelta(days=age)
        Command.objects.filter(mass_command=run).update(status="success", finished=when)
        MassCommand.objects.filter(pk=run.pk).update(status="success", finished=when, queued_count=0, success_count=1)
    return run


@pytest.fixture(autouse=True)
def queue(outbox: Any) -> Any:
    """Nothing is run."""
    return outbox


def test_what_is_past_its_time_is_deleted() -> None:
    old, young, kept = old_run(30, age=31), old_run(30, age=29), old_run(None, age=999)
    assert delete_old() == 2
    assert set(MassCommand.objects.values_list("pk", flat=True)) == {young.pk, kept.pk}
    assert not Command.objects.filter(device__organization=old.organization).exists()


def test_what_has_not_ended_stays() -> None:
    old_run(0, age=0, finished=False)
    assert delete_old(now=timezone.now() + timedelta(days=999)) == 0


def test_the_history_of_a_deleted_run_goes_in_its_time() -> None:
    run = old_run(30, age=31)
    Command.objects.filter(mass_command=run).update(mass_command=None, slice=None, input={})
    run.delete()
    assert delete_old() == 1
