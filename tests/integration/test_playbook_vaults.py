"""Playbooks with encrypted variables: in the catalogue, and on the way to a run."""

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from orchestrator import planning
from orchestrator.cataloguing import Watch, refresh
from orchestrator.exceptions import VaultUnreadableError
from orchestrator.models import MassCommand, Playbook, Slice
from tests import factories
from tests.integration.api_addresses import RUNS
from tests.integration.test_catalogue import folder

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

__all__ = ("folder",)  # a fixture

PASSWORD = "s3cret-of-the-vault"
PLAY = "- hosts: all\n  gather_facts: false\n  vars_files: [secret.yml]\n  tasks:\n    - ansible.builtin.ping:\n"
ADVICE = "This service is given the passwords of vaults by ORCHESTRATOR_PLAYBOOK_VAULTS."


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A password file."""
    made = tmp_path / "password"
    made.touch(mode=0o600)
    made.write_text(f"{PASSWORD}\n")
    return made


@pytest.fixture(autouse=True)
def playbooks(folder: Path) -> None:
    """A playbook whose variables are encrypted, and one without any."""
    sealed: bytes = VaultLib().encrypt("word: hello\n", secret=VaultSecret(PASSWORD.encode()), vault_id="prod")
    (folder / "secret.yml").write_bytes(sealed)
    (folder / "site.yml").write_text(PLAY)
    (folder / "plain.yml").write_text(PLAY.replace("  vars_files: [secret.yml]\n", ""))


def test_the_catalogue_reads_with_the_vault_and_says_what_to_do_without(
    folder: Path, password: Path, settings: Any
) -> None:
    watch = Watch()
    found = watch.look()
    assert found is not None
    assert list(found.broken) == ["site"]
    assert "Attempting to decrypt but no vault secrets found" in found.broken["site"]
    assert found.broken["site"].endswith(ADVICE)
    settings.PLAYBOOK_VAULTS = [(settings.PLAYBOOK_DIR, "prod", password)]  # of another directory
    assert list(refresh().broken) == ["site"]
    settings.PLAYBOOK_VAULTS = [(folder, "prod", password)]
    found = watch.look()  # nothing in the directory has changed
    assert found is not None
    assert (found.broken, found.changed) == ({}, ["site"])
    assert watch.look() is None
    password.chmod(0o604)
    found = watch.look()
    assert found is not None
    words = 'The password file of the vault "prod" can be read or changed by others: give it the mode 0600.'
    assert {name: said.startswith(words) for name, said in found.broken.items()} == {"plain": True, "site": True}
    password.chmod(0o600)
    found = watch.look()
    assert found is not None
    assert found.broken == {}


def test_a_playbook_that_says_the_password_while_it_is_read_does_not_tell_it(
    folder: Path, password: Path, settings: Any
) -> None:
    settings.PLAYBOOK_VAULTS = [(None, "prod", password)]
    task = f"ansible.builtin.import_tasks: \"{{{{ lookup('file', '{password}') }}}}.yml\""
    (folder / "loud.yml").write_text(f"- hosts: all\n  tasks:\n    - {task}\n")
    message = refresh().broken["loud"]
    assert "********" in message
    assert PASSWORD not in message


def test_a_run_has_the_vaults_of_the_directory_that_it_was_launched_from(
    api: Any, folder: Path, password: Path, settings: Any
) -> None:
    settings.PLAYBOOK_VAULTS = [(folder, "prod", password)]
    refresh()
    device = factories.device(host_key="ssh-ed25519 AAAA", credentials=[factories.credential()])
    body = {"devices": [str(device.pk)], "type": "playbook", "playbook": "site"}
    reply = api(factories.superuser()).post(RUNS, body)
    assert reply.status_code == 201, reply.content
    run = MassCommand.objects.get()
    Playbook.objects.all().delete()  # it goes on with its copy
    plan = planning.plan(Slice.objects.select_related("mass_command").get(mass_command=run))
    request = plan.request(plan.targets(0), ident="x")
    assert [(vault.label, vault.file, vault.secret) for vault in request.vaults] == [("prod", password, PASSWORD)]
    assert PASSWORD not in str(request)
    assert PASSWORD not in request.secrets  # which are written into the run's directory
    assert PASSWORD not in reply.content.decode()
    run.playbook_directory = "/srv/another"
    plan.run = run
    assert plan.request(plan.targets(0), ident="x").vaults == ()
    password.unlink()
    run.playbook_directory = str(folder)
    with pytest.raises(VaultUnreadableError, match="can't be read: No such file or directory"):
        plan.request(plan.targets(0), ident="x")
