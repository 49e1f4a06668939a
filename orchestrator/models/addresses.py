"""What may stand in the fields that reach an SSH client: host, user name, host key, tags.

None of them can be read as an option of ssh, a template or a second word.
"""

import base64
import binascii
import ipaddress
import re
from typing import Any, Final

from django.core.exceptions import ValidationError

# RFC 1123 section 2.1: letters, digits and hyphens, not at either end of a label; underscores occur in practice.
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z", re.ASCII)
# useradd(8) of shadow-utils, with upper case and dots, which directories (LDAP, AD) hand out.
_USERNAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}\$?\Z", re.ASCII)
_KEY_TYPES: Final = frozenset(
    {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"}
)
_MAX_HOST: Final = 253  # characters, RFC 1035 section 3.1 written out
_MAX_TAGS: Final = 64
_MAX_TAG: Final = 64  # characters


def validate_host(value: str) -> None:
    """A host name (RFC 1123), an IPv4 or an IPv6 address."""
    try:
        if "%" in value:  # ip_address() takes any text as an IPv6 zone
            raise ValueError
        ipaddress.ip_address(value)
    except ValueError:
        labels = value.removesuffix(".").split(".")
        numeric = labels[-1].isdigit()  # 1.2.3.999 is a mistyped address, not a name
        if numeric or len(value) > _MAX_HOST or not value.isascii() or not all(_LABEL.match(label) for label in labels):
            raise ValidationError("Enter a host name, an IPv4 address or an IPv6 address.") from None


def validate_username(value: str) -> None:
    """A user name of a Unix system."""
    if not _USERNAME.match(value):
        raise ValidationError("Enter a user name: letters, digits, '.', '_' and '-', not beginning with '-' or '.'.")


def validate_host_key(value: str) -> None:
    """Public host keys, one a line, each ``type base64`` (RFC 4253 section 6.6)."""
    for line in value.splitlines():
        parts = line.split()
        if len(parts) != 2 or parts[0] not in _KEY_TYPES or not _key_says(parts[1], parts[0]):
            raise ValidationError("Enter host keys as 'type base64', one a line, without host names or comments.")


def _key_says(encoded: str, key_type: str) -> bool:
    """Whether the blob is base64 and begins with its own type, as each SSH key does."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    length = int.from_bytes(blob[:4])
    return blob[4 : 4 + length] == key_type.encode() and len(blob) > 4 + length


def validate_tags(value: Any) -> None:
    """A list of short words."""
    if not isinstance(value, list) or len(value) > _MAX_TAGS:
        raise ValidationError(f"Enter a list of at most {_MAX_TAGS} tags.")
    for tag in value:
        if not isinstance(tag, str) or not 0 < len(tag) <= _MAX_TAG or not tag.isprintable() or "\x00" in tag:
            raise ValidationError(f"A tag is a text of 1 to {_MAX_TAG} printable characters.")
