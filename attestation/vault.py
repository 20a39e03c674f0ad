"""Small secrets at rest: AES-256-GCM under a key derived from MASTER_KEY for one purpose.

What is sealed is bound to a context (whose it is), so that a sealed value copied to another row does not open there.
"""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

NONCE_BYTES = 12


class Locked(Exception):
    """The value was sealed under another MASTER_KEY, for another purpose or context, or was tampered with."""

    def __init__(self) -> None:
        super().__init__("A stored secret does not open with this MASTER_KEY. Set the one it was kept with.")


def seal(purpose: str, context: str, secret: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(settings.MASTER_KEY, purpose).encrypt(nonce, secret, context.encode())


def unseal(purpose: str, context: str, sealed: bytes) -> bytes:
    """Raises Locked."""
    try:
        return _cipher(settings.MASTER_KEY, purpose).decrypt(
            sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode()
        )
    except (InvalidTag, ValueError):
        raise Locked from None


@lru_cache(maxsize=8)
def _cipher(master: str, purpose: str) -> AESGCM:
    derive = HKDF(hashes.SHA256(), length=32, salt=None, info=f"paramstack {purpose} v1".encode())
    return AESGCM(derive.derive(master.encode()))
