"""No secret of a run is in what is stored of it, in whichever form it comes back."""

import base64
import html
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.output import cut
from orchestrator.redaction import Redactor
from orchestrator.secrets import MASK

SECRET = 'p@ss "w0rd" $it\'s\\ é+/&<>'
KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "\n".join(x * 70 for x in "ABC") + "\n-----END OPENSSH PRIVATE KEY-----\n"
)
PASSWORDS = json.loads((Path(__file__).parent.parent / "corpus" / "passwords.json").read_text())

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "quoted for a shell": shlex.quote,
    "quoted the other way": lambda s: "'" + s.replace("'", "'\\''") + "'",
    "by bash": lambda s: subprocess.check_output(["bash", "-c", "printf '%s' \"${1@Q}\"", "x", s], text=True),
    "in double quotes": lambda s: '"' + "".join("\\" + c if c in '$`"\\' else c for c in s) + '"',
    "JSON": json.dumps,
    "JSON as it is": lambda s: json.dumps(s, ensure_ascii=False),
    "Python": repr,
    "URL": lambda s: quote(s, safe=""),
    "path": quote,
    "form": quote_plus,
    "URL in small letters": lambda s: re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quote(s, safe="")),
    "HTML": html.escape,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 with a newline": lambda s: base64.b64encode(s.encode() + b"\n").decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "basic authentication": lambda s: base64.b64encode(b"root:" + s.encode()).decode(),
    "basic authentication of another": lambda s: base64.b64encode(b"admin1:" + s.encode()).decode(),
    "a command line in JSON": lambda s: json.dumps(f"echo {shlex.quote(s)}", ensure_ascii=False),
    "JSON in JSON": lambda s: json.dumps(json.dumps([s]), ensure_ascii=False),
    "base64 in lines": lambda s: base64.encodebytes(b"x" * 70 + s.encode() * 3).decode(),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [SECRET, *(case["password"] for case in PASSWORDS)])
def test_a_secret_is_taken_out_in_each_form(form: str, secret: str) -> None:
    text = FORMS[form](secret)
    if form == "base64 in lines" and len(secret) < 46:
        text = text.replace("\n", "")
    clean = Redactor([secret]).clean(f"before {text} after")
    assert MASK in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")
    assert secret not in clean
    assert len(clean) - len("before  after") <= len(MASK) * (4 if "base64" in form else 1) + 110


def test_a_long_secret_is_found_in_base64_with_line_breaks() -> None:
    secret = "".join(chr(33 + n % 90) for n in range(128))
    for newline in ("\n", "\r\n"):
        text = base64.encodebytes(b"x" * 50 + secret.encode()).decode().replace("\n", newline)
        assert base64.b64encode(secret.encode()[4:40]).decode()[:16] not in Redactor([secret]).clean(text)
        assert MASK in Redactor([secret]).clean(text)


def test_a_key_is_taken_out_also_line_by_line() -> None:
    clean = Redactor([KEY]).clean("x\r\n" + KEY.replace("\n", "\r\n") + "y " + "B" * 70)
    assert not any(letter * 20 in clean for letter in "ABC")
    assert Redactor([KEY]).clean("-----BEGIN OPENSSH PRIVATE KEY-----") == "-----BEGIN OPENSSH PRIVATE KEY-----"


def test_a_secret_that_was_cut_in_the_middle_is_taken_out_at_both_sides_of_the_cut() -> None:
    text = "head canary-S\n[... 100 bytes left out ...]\necret-77 tail canary"
    clean = Redactor(["canary-Secret-77"]).clean(text, cut=True)
    assert clean == f"head {MASK}\n[... 100 bytes left out ...]\n{MASK} tail {MASK}"
    assert Redactor(["canary-Secret-77"]).clean("no canary", cut=False) == "no canary"


def test_a_gap_is_known_as_one_whoever_made_it() -> None:
    shortened = cut("canary-Secret-77 " * 100, 256)
    assert shortened.truncated
    pieces = Redactor(["canary-Secret-77"]).clean(shortened.text).replace(MASK, "")
    assert not any(part in pieces for part in ("cana", "ary-", "Secr", "t-77"))


def test_what_is_found_of_a_key_that_was_cut_does_not_hide_the_rest_of_it() -> None:
    key = "-----BEGIN X-----\n" + "\n".join(x * 30 + "+" + x * 30 for x in "AB") + f"\n{'C' * 61}\n{'D' * 61}\n"
    text = quote(key)
    gap = "\n[... 9 bytes left out ...]\n"
    clean = Redactor([key]).clean(f"x {text[:-30]}{gap}{text[60:]} y")  # C is a line of the key as it is
    assert not any(letter * 10 in clean for letter in "ABCD"), clean
    assert clean == f"x {MASK}{gap}{MASK} y"


@pytest.mark.parametrize("before", range(0, 150, 13))
def test_a_key_in_lines_of_base64_that_was_cut_is_taken_out(before: int) -> None:
    key = "-----BEGIN X-----\n" + "".join(f"{number:02}{chr(65 + number) * 60}\n" for number in range(10))
    wrapped = base64.encodebytes(key.encode()).decode()
    shortened = cut("x" * before + "\n" + wrapped + "y" * 100 + "\n" + wrapped + "z" * 50, 700)
    clean = Redactor([key]).clean(shortened.text)
    assert MASK in clean
    told = {wrapped.replace("\n", "")[at : at + 20] for at in range(len(wrapped) - 40)}
    assert not [part for part in told if part in clean.replace("\n", "")]


def test_a_character_that_was_cut_in_two_hides_no_part_of_a_secret() -> None:
    text = "head gehäuse-\ufffd\n[... 1 bytes left out ...]\n\ufffdchlüssel tail"
    clean = Redactor(["gehäuse-öhrschlüssel"]).clean(text, cut=True)
    assert "gehäuse" not in clean
    assert "chlüssel" not in clean


@pytest.mark.parametrize("text", ["ab", "x ab y", "(ab)", "ab\n"])
def test_a_short_secret_is_taken_out_where_it_stands_alone(text: str) -> None:
    assert "ab" not in Redactor(["ab"]).clean(text)


def test_a_short_secret_leaves_words_alone() -> None:
    assert Redactor(["ab", "1"]).clean("about 21 tables") == "about 21 tables"


@pytest.mark.parametrize("secrets", [[], [""], [" "], ["\n"]])
def test_nothing_is_taken_out_for_no_secret(secrets: list[str]) -> None:
    assert Redactor(secrets).clean("a  b \n c", cut=True) == "a  b \n c"


def test_of_two_secrets_of_which_one_holds_the_other_none_is_left() -> None:
    assert Redactor(["pass", "password-1"]).clean("password-1 pass") == f"{MASK} {MASK}"


@given(secret=st.text(min_size=4, max_size=40), before=st.text(max_size=20), after=st.text(max_size=20))
def test_any_text_can_be_a_secret(secret: str, before: str, after: str) -> None:
    clean = Redactor([secret]).clean(before + secret + after)
    assert not secret.strip() or secret not in clean.replace(MASK, "")


def test_many_secrets_and_much_output_take_little_time() -> None:
    redactor = Redactor([f"device-{number}-Secret" for number in range(200)])
    text = "some line of output that says nothing\n" * 7_000
    began = time.perf_counter()
    redactor.clean(text)
    assert time.perf_counter() - began < 3


def test_a_representation_shows_no_secret() -> None:
    assert SECRET not in repr(Redactor([SECRET]))
