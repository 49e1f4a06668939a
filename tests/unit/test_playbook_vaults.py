"""Passwords of ansible-vault: which file may hold one, whose playbooks it opens, and that it opens them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from orchestrator import playbook_vaults
from orchestrator.checks import check_playbook_vaults
from orchestrator.exceptions import VaultUnreadableError
from orchestrator.playbook_files import describe
from orchestrator.playbook_vaults import Vault, advised, opened, problem, vaults

PASSWORD = "pässw0rd-of-the-vault"
VAULT = Vault("prod", Path("/nowhere"), PASSWORD.encode())


def encrypted(text: str, password: str = PASSWORD, label: str | None = None) -> str:
    """As ``ansible-vault encrypt`` writes it."""
    made: bytes = VaultLib().encrypt(text, secret=VaultSecret(password.encode()), vault_id=label)
    return made.decode()


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    """A password file that is fit."""
    settings.PLAYBOOK_DIRS = [tmp_path / "playbooks"]
    made = tmp_path / "password"
    made.touch(mode=0o600)
    made.write_text(f"{PASSWORD}\n")
    return made


@pytest.mark.parametrize("label", [None, "prod"])
@pytest.mark.parametrize("text", ["a: 1\n", "b: äöü\n" * 100, "sixteen bytes ok"])
def test_what_ansible_has_encrypted_is_opened_with_the_password_alone(text: str, label: str | None) -> None:
    sealed, other = encrypted(text, label=label), Vault("dev", Path("/nowhere"), b"another")
    assert opened(sealed, [other, VAULT]) == text
    assert opened(sealed, [other]) is None
    assert opened(sealed, []) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("1.1;AES256", "1.0;AES"),
        lambda text: text[:-20],
        lambda text: text[:-2] + ("0" if text[-2] != "0" else "1") + "\n",
        lambda text: text.replace("\n3", "\nx", 1),
        lambda text: text.partition("\n")[0],
        lambda text: "a: 1\n",
    ],
    ids=["another cipher", "cut", "one digit", "no hexadecimal", "header alone", "not encrypted"],
)
def test_what_was_altered_is_not_opened(spoil: Callable[[str], str]) -> None:
    assert opened(spoil(encrypted("a: 1\n")), [VAULT]) is None


def test_a_password_that_is_shown_nowhere_is_read_without_its_line_break(file: Path, settings: Any) -> None:
    settings.PLAYBOOK_VAULTS = [(None, "prod", file)]
    [vault] = vaults("/srv/playbooks")
    assert (vault.label, vault.file, vault.secret) == ("prod", file, PASSWORD)
    assert PASSWORD not in repr(vault)
    assert playbook_vaults.environment([vault])["ANSIBLE_VAULT_IDENTITY_LIST"] == f"prod@{file}"
    assert PASSWORD not in str(playbook_vaults.environment([vault]))
    assert playbook_vaults.environment([]) == {"ANSIBLE_ASK_VAULT_PASS": "False"}


def test_a_vault_of_one_directory_is_no_other_ones(file: Path, settings: Any) -> None:
    settings.PLAYBOOK_VAULTS = [(Path("/srv/a"), "a", file), (None, "all", file), (Path("/data/net"), "net", file)]
    assert [vault.label for vault in vaults("/srv/a")] == ["a", "all"]
    assert [vault.label for vault in vaults(Path("/data/net"))] == ["all", "net"]
    assert [vault.label for vault in vaults("/srv/a/b")] == ["all"]
    assert [vault.label for vault in vaults("")] == ["all"]


def _other_owner(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(path, 12345, -1)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "can't be read: No such file or directory."),
        (lambda path: (path.unlink(), path.mkdir()), "is no file."),
        (_pipe, "is no file."),
        (lambda path: path.chmod(0o644), "can be read or changed by others: give it the mode 0600."),
        (lambda path: path.chmod(0o620), "can be read or changed by others: give it the mode 0600."),
        (lambda path: path.chmod(0o700), "is executable: scripts that tell a password are not run."),
        (lambda path: path.write_text("\n"), "is empty."),
        (lambda path: path.write_text(encrypted("x")), "is encrypted itself."),
        (_other_owner, "belongs to another user than the service's."),
    ],
    ids=["gone", "directory", "pipe", "for all", "for the group to change", "script", "empty", "encrypted", "owner"],
)
def test_a_file_that_is_not_fit_is_named_with_its_setting(
    file: Path, settings: Any, spoil: Callable[[Path], Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PLAYBOOK_VAULTS = [(None, "prod", file)]
    assert (problem(file), check_playbook_vaults(None)) == ("", [])
    before = playbook_vaults.stamp("/srv")
    spoil(file)
    assert problem(file) == words
    assert [error.msg for error in check_playbook_vaults(None)] == [f"ORCHESTRATOR_PLAYBOOK_VAULTS: {file} {words}"]
    assert playbook_vaults.stamp("/srv") != before
    with pytest.raises(VaultUnreadableError) as told:
        vaults("/srv")
    assert str(told.value.detail) == (
        f'The password file of the vault "prod" {words} It is named by ORCHESTRATOR_PLAYBOOK_VAULTS.'
    )
    assert str(file) in caplog.text  # for the operator, not for users of the API


def test_a_password_is_not_among_what_is_copied_for_runs(tmp_path: Path, settings: Any, file: Path) -> None:
    (tmp_path / "playbooks").mkdir()
    inside = file.rename(tmp_path / "playbooks" / "password")
    (tmp_path / "link").symlink_to(inside)
    assert problem(inside) == problem(tmp_path / "link") == "is in a directory of playbooks, which is copied for runs."


def test_groups_may_read_a_password_that_root_gives_them(file: Path) -> None:
    file.chmod(0o640)
    assert problem(file) == ""


def test_ansibles_words_get_advice_where_a_password_is_missing() -> None:
    for said in (
        "Attempting to decrypt but no vault secrets found.",
        "Decryption failed (no vault secrets were found that could decrypt).",
        "The vault password file /srv/.vault was not found",
    ):
        assert (
            advised(said) == f"{said}\nThis service is given the passwords of vaults by ORCHESTRATOR_PLAYBOOK_VAULTS."
        )
        assert advised(advised(said)) == advised(said)
    assert advised("A vault of another kind.") == "A vault of another kind."


def test_what_encrypted_files_of_variables_set_need_not_be_given(tmp_path: Path) -> None:
    (tmp_path / "roles" / "web" / "meta").mkdir(parents=True)
    options = "".join(f"{name}: {{type: str, required: true}}, " for name in ("port", "more", "left"))
    spec = f"argument_specs: {{main: {{options: {{{options}}}}}}}\n"
    (tmp_path / "roles" / "web" / "meta" / "argument_specs.yml").write_text(spec)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(encrypted("port: 1\n", label="prod"))
    (tmp_path / "secret.yml").write_text(encrypted("more: 1\n"))
    play = tmp_path / "play.yml"
    play.write_text("- hosts: all\n  vars_files: [secret.yml]\n  roles: [web]\n")
    assert describe(play, root=tmp_path).schema["required"] == ["port", "more", "left"]
    known = describe(play, root=tmp_path, vaults=[VAULT])
    assert known.schema["required"] == ["left"]
    assert "1" not in str(known.defaults)
