"""The platform's signing keys. Private halves rest encrypted: AES-256-GCM under a key derived from MASTER_KEY.

Rule: there is one current key, whoever asks first and however many ask at once; the database keeps it so.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from attestation import signing
from attestation.models import SigningKey

NONCE_BYTES = 12


class Locked(Exception):
    """MASTER_KEY is not the one under which this key was stored."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(
            f"The signing key {key_id[:12]} does not open with this MASTER_KEY. Set the one it was kept with."
        )


def current() -> SigningKey:
    """The key that signs new statements, created on first use."""
    return SigningKey.objects.filter(is_current=True).first() or _create()


def private_key(key: SigningKey) -> Ed25519PrivateKey:
    """The decrypted private half. Raises Locked under another MASTER_KEY or after tampering with the row."""
    sealed = base64.b64decode(key.encrypted_private_key)
    try:
        raw = _cipher().decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], key.key_id.encode())
    except InvalidTag:
        raise Locked(key.key_id) from None
    return Ed25519PrivateKey.from_private_bytes(raw)


def public_keys() -> dict[str, str]:
    """`{keyid: public key}` in hex, of every key that is not revoked."""
    return dict(SigningKey.objects.filter(revoked_at=None).values_list("key_id", "public_key"))


def revoke(key_id: str) -> None:
    """Nothing this key signed verifies any more; the next statement is signed by a new key. Twice is once."""
    SigningKey.objects.filter(key_id=key_id, revoked_at=None).update(is_current=False, revoked_at=timezone.now())


def _create() -> SigningKey:
    private = signing.generate()
    public = signing.public_hex(private)
    key = SigningKey(key_id=signing.key_id(public), public_key=public, is_current=True)
    nonce = os.urandom(NONCE_BYTES)
    sealed = _cipher().encrypt(nonce, private.private_bytes_raw(), key.key_id.encode())
    key.encrypted_private_key = base64.b64encode(nonce + sealed).decode()
    try:
        with transaction.atomic():
            key.save(force_insert=True)
    except IntegrityError:  # another process was faster: its key is the current one
        return SigningKey.objects.get(is_current=True)
    return key


def _cipher() -> AESGCM:
    # HKDF, not a password hash: MASTER_KEY is generated, and the ledger signs many batches a second.
    derive = HKDF(hashes.SHA256(), length=32, salt=None, info=b"paramstack signing keys v1")
    return AESGCM(derive.derive(settings.MASTER_KEY.encode()))
