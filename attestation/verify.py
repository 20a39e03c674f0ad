"""Whether files and dicts are what was signed. Needs no database: keys come in, a statement or an error comes out.

Rule: the signature is judged before a byte of the statement is believed, and the statement before the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestation import canonical, signing
from attestation.signing import VerificationError, gettext_noop

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SHA256 = re.compile(r"[0-9a-f]{64}")


def statement(
    envelope: Any, keys: Mapping[str, str], subject_digest: str | None = None, predicate_type: str | None = None
) -> dict[str, Any]:
    """The in-toto Statement v1 in `envelope`, signed by one of `keys` and about what the caller says it is about.

    Raises VerificationError: those of `signing.verify_envelope`, statement, predicate or subject.
    """
    found = _statement(signing.verify_envelope(envelope, keys))
    if predicate_type is not None and found["predicateType"] != predicate_type:
        template = gettext_noop("The statement says {found}, not {expected}.")
        raise VerificationError("predicate", template, found=found["predicateType"], expected=predicate_type)
    if subject_digest is not None and digest_of(found) != subject_digest:
        template = gettext_noop("The statement is about something else: its subject is {found}, not {expected}.")
        raise VerificationError("subject", template, found=digest_of(found)[:12], expected=subject_digest[:12])
    return found


def directory(
    path: Path | str, envelope: Any, keys: Mapping[str, str], predicate_type: str | None = None
) -> dict[str, Any]:
    """The statement about the directory `path`, whose files are all there, unchanged, and no others.

    Raises VerificationError: those of `statement`, unsignable or files (details: changed, missing, added).
    """
    signed = statement(envelope, keys, predicate_type=predicate_type)
    try:
        found = canonical.manifest(path)
    except canonical.UnsignableFile as error:
        template = gettext_noop("{path} is a link or another thing that cannot be signed.")
        raise VerificationError("unsignable", template, path=shown([error.path])) from None
    same_files(signed, found)
    return signed


def same_files(statement: dict[str, Any], found: list[canonical.Entry]) -> None:
    """Raises VerificationError (files: changed, missing, added) unless `found` is what the statement is about."""
    if canonical.digest(found) != digest_of(statement):
        raise _difference(statement["predicate"].get("files", []), found)


def file(path: Path | str, envelope: Any, keys: Mapping[str, str], predicate_type: str | None = None) -> dict[str, Any]:
    """The statement about the bytes of one file, whose envelope is kept elsewhere."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return statement(envelope, keys, digest, predicate_type)


def digest_of(statement: dict[str, Any]) -> str:
    """The SHA-256 of the statement's one subject, in hex."""
    return str(statement["subject"][0]["digest"]["sha256"])


def shown(names: list[str]) -> str:
    """File names for a sentence: at most five, without control characters (a stranger chose them), or a dash."""
    plain = ["".join(c if c.isprintable() else "?" for c in name) for name in names[:5]]
    return ", ".join(plain) + (" …" if len(names) > 5 else "") if names else "–"


def _statement(payload: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = canonical.parse(payload)
        (subject,) = found["subject"]
        sound = (
            found["_type"] == STATEMENT_TYPE
            and isinstance(found["predicateType"], str)
            and isinstance(found["predicate"], dict)
            and isinstance(subject["name"], str)
            and SHA256.fullmatch(subject["digest"]["sha256"])
        )
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise VerificationError("statement", gettext_noop("What was signed is not an in-toto Statement v1."))
    return found


def _difference(signed: list[canonical.Entry], found: list[canonical.Entry]) -> VerificationError:
    before = {entry["path"]: entry for entry in signed}
    after = {entry["path"]: entry for entry in found}
    names = {
        "changed": sorted(name for name in before.keys() & after.keys() if before[name] != after[name]),
        "missing": sorted(before.keys() - after.keys()),
        "added": sorted(after.keys() - before.keys()),
    }
    template = gettext_noop(
        "The files are not those that were signed. Changed: {changed}. Missing: {missing}. Added: {added}."
    )
    return VerificationError("files", template, **{kind: shown(found) for kind, found in names.items()})
