"""Ed25519 signatures in DSSE v1 envelopes. Pure: no Django, no clock, no key store.

Format: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md, narrowed where the specification leaves
room: `keyid` is required and is the SHA-256 of the raw public key, and base64 has one spelling, so that no byte of an
envelope can change unnoticed. A key is named as `{keyid: public key}`, both in hex.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class VerificationError(Exception):
    """Why something is not what was signed.

    `reason` is a stable word for programs, `template` an English sentence to translate, `details` fills it.
    """

    def __init__(self, reason: str, template: str, **details: object) -> None:
        self.reason, self.template, self.details = reason, template, details
        super().__init__(template.format(**details))


def gettext_noop(sentence: str) -> str:
    """Marks a sentence for `makemessages`; Django's own would break the purity of this module."""
    return sentence


def generate() -> Ed25519PrivateKey:
    """A fresh private key."""
    return Ed25519PrivateKey.generate()


def public_hex(private_key: Ed25519PrivateKey) -> str:
    """The raw public key of 32 bytes, in hex."""
    return private_key.public_key().public_bytes_raw().hex()


def key_id(public_key: str) -> str:
    """SHA-256 in hex of the raw public key given in hex."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: the bytes that are signed, type and lengths included."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_envelope(private_key: Ed25519PrivateKey, payload_type: str, payload: bytes) -> dict[str, Any]:
    """The DSSE envelope of `payload`, ready for JSON."""
    signature = private_key.sign(pae(payload_type, payload))
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(public_hex(private_key)), "sig": base64.b64encode(signature).decode()}],
    }


def verify_envelope(envelope: Any, keys: Mapping[str, str], payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The payload, once one signature by one of `keys` over exactly this type and payload is valid.

    Raises VerificationError: malformed, payload_type, unknown_key or signature.
    """
    kind, payload, signatures = _opened(envelope)
    if kind != payload_type:
        template = gettext_noop("The envelope holds {found}, not {expected}.")
        raise VerificationError("payload_type", template, found=repr(kind), expected=repr(payload_type))
    known = [(keys[keyid], signature) for keyid, signature in signatures if keyid in keys]
    if not known:
        template = gettext_noop("It was signed by the key {keyid}, which is not among the known keys.")
        raise VerificationError("unknown_key", template, keyid=repr(signatures[0][0][:64]))
    message = pae(payload_type, payload)
    if not any(_is_valid(public_key, signature, message) for public_key, signature in known):
        raise VerificationError("signature", gettext_noop("The signature does not fit the statement."))
    return payload


def _opened(envelope: Any) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    try:
        kind, payload, signatures = envelope["payloadType"], envelope["payload"], envelope["signatures"]
        found = [(str(item["keyid"]), _decoded(item["sig"])) for item in signatures]
        if not found or not isinstance(kind, str):
            raise ValueError
        return kind, _decoded(payload), found
    except (KeyError, TypeError, ValueError):
        raise VerificationError("malformed", gettext_noop("This is not a DSSE envelope.")) from None


def _decoded(text: str) -> bytes:
    """Base64 in its one canonical spelling: the spare bits of the last character must be zero."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def _is_valid(public_key: str, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, message)
    except InvalidSignature:
        return False
    return True
