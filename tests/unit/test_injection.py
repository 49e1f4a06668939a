"""Each text of the corpus is taken as it is, or refused: by everything that a user's text goes through to a run."""

import re
from collections.abc import Callable

from django.core.exceptions import ValidationError

from ansible_plugins.action.device_password import ACCOUNT
from ansible_plugins.connection.device_ssh import PLAIN_ADDRESS, PLAIN_USER
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models.addresses import validate_host, validate_host_key, validate_username
from orchestrator.playbooks import CheckedInput, check_input, playbook_variables
from orchestrator.secrets import MASK
from tests.corpus import CANARY, injections

TEXTS = injections()


def accepted(check: Callable[[str], object]) -> list[str]:
    """The texts that pass."""
    passed = []
    for text in TEXTS:
        try:
            check(text)
        except (ValidationError, InvalidFieldError):
            continue
        passed.append(text)
    return passed


def custom(text: str) -> CheckedInput:
    """The input of a custom command."""
    return check_input("custom", {"command": text})


def change_password(text: str) -> CheckedInput:
    """The input of a password change."""
    return check_input("change_password", {"password": text, "confirm_password": text})


def test_the_corpus_is_large_and_has_no_text_twice() -> None:
    assert len(TEXTS) == len(set(TEXTS)) >= 200


def test_a_command_reaches_the_playbook_as_it_is_or_is_refused() -> None:
    passed = accepted(custom)
    assert 200 < len(passed) < len(TEXTS)
    for text in passed:
        checked = custom(text)
        assert playbook_variables("custom", checked.shown, checked.secret) == {"command": text}
        assert not set(text) & {"\0", "\n", "\r"}
        assert len(text.encode()) <= 8000


def test_a_password_reaches_the_playbook_as_it_is_or_is_refused() -> None:
    passed = accepted(change_password)
    assert 100 < len(passed) < len(TEXTS)
    for text in passed:
        checked = change_password(text)
        assert playbook_variables("change_password", checked.shown, checked.secret)["new_password"] == text
        assert set(checked.shown.values()) == {MASK}
        assert text.isprintable()
        assert 6 <= len(text) <= 128


def test_a_user_name_is_a_plain_word_that_the_engine_takes() -> None:
    for text in accepted(validate_username):
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*\$?", text, re.ASCII)
        assert PLAIN_USER.fullmatch(text)
        assert ACCOUNT.fullmatch(text)


def test_an_address_is_a_plain_word_that_the_engine_takes() -> None:
    for text in accepted(validate_host):
        assert re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*", text, re.ASCII)
        assert PLAIN_ADDRESS.fullmatch(text)


def test_no_text_is_a_host_key() -> None:
    assert accepted(validate_host_key) == []


def test_nothing_was_evaluated() -> None:
    assert not CANARY.exists()
