"""known_hosts files as OpenSSH writes them."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.known_hosts import KnownHosts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZyVPqYZYXE0hTzW0bTgzlhZyZvoqFJ8MBxKh7qyHsB"


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        ("192.0.2.7", "192.0.2.7", 22),
        ("[192.0.2.7]:22", "192.0.2.7", 22),
        ("[192.0.2.7]:2222", "192.0.2.7", 2222),
        ("a.example.org,192.0.2.7", "192.0.2.7", 22),
        ("A.Example.ORG", "a.example.org", 22),
        ("a.example.org", "A.EXAMPLE.org", 22),
        ("2001:db8::1", "2001:db8::1", 22),
        ("[2001:db8::1]:2222", "2001:db8::1", 2222),
    ],
)
def test_a_device_is_found_by_address_and_port(line: str, host: str, port: int) -> None:
    known = KnownHosts.parse(f"# a comment\n\n{line} {KEY} root@somewhere\n")
    assert known.keys_of(host, port) == [KEY]
    assert known.keys_of(host, port + 1) == []
    assert not known.ignored


@pytest.mark.parametrize(("host", "port"), [("192.0.2.7", 22), ("a.example.org", 2222)])
def test_names_that_ssh_keygen_has_hashed_are_found(tmp_path: Path, host: str, port: int) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{host if port == 22 else f'[{host}]:{port}'} {KEY}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    text = file.read_text()
    assert text.startswith("|1|")
    known = KnownHosts.parse(text)
    assert known.keys_of(host, port) == [KEY]
    assert known.keys_of(host, 99) == known.keys_of("192.0.2.8", port) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"@revoked * {KEY}", "Revoked"),
        (f"@cert-authority *.example.org {KEY}", "authorities"),
        (f"*.example.org {KEY}", r"Patterns are not supported: \*.example.org"),
        (f"!a.example.org {KEY}", "Patterns"),
        ("a.example.org", "no line of names"),
        ("a.example.org ssh-ed25519 AAAA!", "no line of names"),
        ("a.example.org ssh-dss AAAAB3NzaC1kc3M", "no line of names"),
        ("a.example.org 1024 35 1234567", "no line of names"),
        (f"|1|no base64|x {KEY}", "no line of names"),
        (f"|1|AAAA {KEY}", "hashed name"),
    ],
)
def test_a_line_that_is_not_taken_says_why_and_hinders_no_other(line: str, why: str) -> None:
    known = KnownHosts.parse(f"{line}\n192.0.2.7 {KEY}")
    [ignored] = known.ignored
    assert ignored.line == 1
    assert why.replace("\\", "") in ignored.reason
    assert known.keys_of("192.0.2.7", 22) == [KEY]
    assert known.keys_of("a.example.org", 22) == []


def test_several_keys_of_a_device_are_each_taken_once() -> None:
    other = KEY.replace("HsB", "HsC")
    known = KnownHosts.parse(f"192.0.2.7 {KEY}\n192.0.2.7,192.0.2.8 {other}\n[192.0.2.7]:22 {KEY}")
    assert known.keys_of("192.0.2.7", 22) == [KEY, other]
