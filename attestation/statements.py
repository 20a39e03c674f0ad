"""Signing what happened: in-toto Statements v1, one subject each, kept as rows and beside the files they are about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attestation import canonical, keyring, signing, verify
from attestation.models import Statement

ADAPTER = "https://paramstack.dev/adapter/v1"
EXPORT = "https://paramstack.dev/export/v1"
EVALUATION = "https://paramstack.dev/evaluation/v1"
LEDGER_BATCH = "https://paramstack.dev/ledger-batch/v1"


def sign(
    scope: str, predicate_type: str, subject_name: str, subject_digest: str, predicate: dict[str, Any]
) -> Statement:
    """A signed and stored statement that `predicate` holds of the subject.

    `scope` is opaque (a tenant's id), `subject_digest` a SHA-256 in hex. Raises ValueError for a predicate that
    RFC 8785 cannot write (NaN, integers beyond 2^53-1), keyring.Locked under another MASTER_KEY.
    """
    if not verify.SHA256.fullmatch(subject_digest):
        raise ValueError(f"{subject_digest!r} is not a SHA-256 in lower-case hex.")
    document = {
        "_type": verify.STATEMENT_TYPE,
        "subject": [{"name": subject_name, "digest": {"sha256": subject_digest}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    key = keyring.current()
    payload = canonical.json_bytes(document)
    envelope = signing.sign_envelope(keyring.private_key(key), signing.PAYLOAD_TYPE, payload)
    return Statement.objects.create(
        scope=scope,
        predicate_type=predicate_type,
        subject_name=subject_name,
        subject_digest=subject_digest,
        envelope=envelope,
        key=key,
    )


def sign_directory(
    scope: str, predicate_type: str, subject_name: str, path: Path | str, predicate: dict[str, Any]
) -> Statement:
    """Signs every file below `path` and leaves the envelope beside them, so that they verify without a database.

    The manifest travels as `predicate["files"]`: a verifier can then say which file changed. Raises as `sign` and
    `canonical.manifest` do, and nothing is written then.
    """
    files = canonical.manifest(path)
    statement = sign(scope, predicate_type, subject_name, canonical.digest(files), {**predicate, "files": files})
    draft = Path(path).with_name(f".{Path(path).name}.{statement.id}")  # outside, where it is not an unsigned file
    draft.write_bytes(canonical.json_bytes(statement.envelope))
    os.replace(draft, Path(path) / canonical.ENVELOPE_NAME)
    return statement
