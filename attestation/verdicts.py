"""Verdicts in the reader's language: what was established, or what is wrong and what to do about it."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from attestation.signing import VerificationError


def refusal(error: VerificationError) -> str:
    """What is wrong, and what to do."""
    return f"{_(error.template).format(**error.details)} {_advice(error.reason)}"


def approval(statement: dict[str, Any]) -> str:
    """What a verified statement establishes about the files it names."""
    (subject,) = statement["subject"]
    files = statement["predicate"].get("files", [])
    return _("Verified: {name} is exactly what was signed (files: {count}, SHA-256: {digest}).").format(
        name=subject["name"], count=len(files) or 1, digest=subject["digest"]["sha256"][:12]
    )


def receipt_approval(verified: dict[str, Any]) -> str:
    """What a verified receipt establishes about its row."""
    signed = verified["statement"]
    return _("Verified: the row {row} is in the signed batch {batch} of {size} rows.").format(
        row=verified["row"].get("request_id", "–"),
        batch=signed["subject"][0]["name"],
        size=signed["predicate"]["size"],
    )


def _advice(reason: str) -> str:
    if reason == "unknown_key":
        return _("If you trust its owner, give the owner's public key; otherwise do not use this.")
    if reason in ("malformed", "payload_type", "statement", "predicate", "subject"):
        return _("Check that you chose the right file, or get a fresh copy from where it came from.")
    return _("Do not use it; get a fresh copy from where it came from.")
