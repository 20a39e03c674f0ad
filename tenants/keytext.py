"""The text of an API key: `ps_live_<id>_<secret>_<crc>`. Pure: the gateway reads keys without a database.

The checksum tells a typing or pasting mistake from a wrong key before anything is looked up; it is not a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib

SHAPE = re.compile(r"ps_live_([a-z2-7]{12})_([a-z2-7]{32})_([0-9a-f]{8})", re.ASCII)
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # RFC 4648 base32, lower case: 5 bits a letter


class Malformed(ValueError):
    """The text is no key of ours: wrong shape or wrong checksum."""


def generate() -> tuple[str, str]:
    """A new (id, secret): 60 and 160 random bits."""
    return _letters(12), _letters(32)


def write(key_id: str, secret: str) -> str:
    """The text that is shown once."""
    return f"ps_live_{key_id}_{secret}_{_checksum(key_id, secret)}"


def parse(text: str) -> tuple[str, str]:
    """(id, secret) of a key's text; raises Malformed."""
    match = SHAPE.fullmatch(text)
    if not match or _checksum(match[1], match[2]) != match[3]:
        raise Malformed("This is not a Param Stack key. Copy the whole key, from ps_live_ to its last character.")
    return match[1], match[2]


def digest(salt: str, secret: str) -> str:
    """What is stored: SHA-256 of salt and secret. 160 random bits need no slow hash."""
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def matches(salt: str, expected: str, secret: str) -> bool:
    """Whether `secret` is the one behind the stored digest, in constant time."""
    return hmac.compare_digest(digest(salt, secret), expected)


def _letters(count: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(count))


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"
