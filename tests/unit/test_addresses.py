"""What may reach an SSH client."""

import pytest
from django.core.exceptions import ValidationError

from orchestrator.models.addresses import validate_host, validate_host_key, validate_tags, validate_username

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0iG0cLr2i9iJ0iG0cLr2i9iJ0iG0cLr2i9iJ0iG0cL"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1", "router", "ap-1.north.example.org", "a_b", "x."])
def test_names_and_addresses_are_hosts(host: str) -> None:
    validate_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "", "-oProxyCommand=id", "a b", "a;b", "$(id)", "`id`", "{{ 7*7 }}", "root@host", "host:22", "[::1]", "a..b",
        "1.2.3.999", "fe80::1%eth0", "fe80::1%$(id)", "a/b", "ä.example", "a\n", "a\x00", "-a", "a-", "x" * 64, "%h",
    ],
)  # fmt: skip
def test_nothing_else_is_a_host(host: str) -> None:
    with pytest.raises(ValidationError):
        validate_host(host)


@pytest.mark.parametrize("name", ["root", "_svc", "a.b-c", "machine$", "Admin1"])
def test_user_names(name: str) -> None:
    validate_username(name)


@pytest.mark.parametrize("name", ["", "-l", "a b", "a;b", "$(id)", "ä", "a" * 65, "a\n", "1root", "a$b"])
def test_what_is_no_user_name(name: str) -> None:
    with pytest.raises(ValidationError):
        validate_username(name)


def test_host_keys() -> None:
    validate_host_key(KEY)
    validate_host_key(f"{KEY}\n{KEY}")


@pytest.mark.parametrize(
    "key", ["nonsense", "ssh-ed25519 AAAA", f"host {KEY}", f"{KEY} comment", "ssh-rsa " + KEY[12:]]
)
def test_what_is_no_host_key(key: str) -> None:
    with pytest.raises(ValidationError):
        validate_host_key(key)


@pytest.mark.parametrize("tags", ["core", [1], [""], ["x" * 65], ["a\nb"], [["a"]], ["t"] * 65, {"a": 1}])
def test_what_are_no_tags(tags: object) -> None:
    with pytest.raises(ValidationError):
        validate_tags(tags)
