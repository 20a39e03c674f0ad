"""`manage.py verify F`: a directory, a file in one, or a receipt, against its signed statement. Exit code 0 or 1."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.core.management.base import BaseCommand
from django.db import DatabaseError
from django.utils.translation import gettext as _

from attestation import canonical, keyring, receipts, signing, verdicts, verify


class Unusable(Exception):
    """The command was given something it cannot work with; the message says what to do."""


class Command(BaseCommand):
    help = "Verify a signed adapter or export directory, a file in it, or a receipt."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path, help="adapter or export directory, a file in it, or a receipt (JSON)")
        parser.add_argument("--key", help="public key: 64 hex digits, or a file with them or a PEM; needs no database")
        parser.add_argument("--envelope", type=Path, help=f"the envelope, where it is not {canonical.ENVELOPE_NAME}")

    def handle(self, *args: Any, path: Path, key: str | None, envelope: Path | None, **options: Any) -> None:
        try:
            self.stdout.write(judge(path, envelope, keys_kept() if key is None else keys_from(key)))
        except signing.VerificationError as error:
            self.refuse(verdicts.refusal(error))
        except Unusable as error:
            self.refuse(str(error))
        except OSError as error:
            sentence = _("{path} cannot be read ({reason}). Check its permissions.")
            self.refuse(sentence.format(path=error.filename, reason=error.strerror))
        if key:
            self.stdout.write(_("Only the key you gave was used: whether it was revoked since is not known here."))

    def refuse(self, sentence: str) -> None:
        self.stderr.write(sentence)
        sys.exit(1)


def judge(path: Path, envelope: Path | None, keys: dict[str, str]) -> str:
    """The sentence of a verdict that is good. Raises VerificationError, Unusable or OSError."""
    if not path.exists():
        raise Unusable(_("There is no file or directory {path}. Check the path.").format(path=path))
    if envelope and path.is_file():
        return verdicts.approval(verify.file(path, read(envelope), keys))
    if path.is_file() and is_receipt(path):
        return verdicts.receipt_approval(receipts.verify(read(path), keys))
    directory = path if path.is_dir() else path.parent
    beside = envelope or directory / canonical.ENVELOPE_NAME
    if not beside.is_file():
        sentence = _("{path} has no envelope: {beside} is missing. Give it with --envelope.")
        raise Unusable(sentence.format(path=path, beside=beside))
    return verdicts.approval(verify.directory(directory, read(beside), keys))


def is_receipt(path: Path) -> bool:
    """Whether a file should be read as a receipt: any JSON that lies in no signed directory."""
    return path.suffix == ".json" and not (path.parent / canonical.ENVELOPE_NAME).exists()


def read(path: Path) -> Any:
    """The JSON in a file."""
    if not path.is_file():
        raise Unusable(_("There is no file or directory {path}. Check the path.").format(path=path))
    try:
        return canonical.parse(path.read_bytes())
    except ValueError as error:
        sentence = _("{path} is not valid JSON ({reason}). Get a fresh copy from where it came from.")
        raise Unusable(sentence.format(path=path, reason=error)) from None


def keys_from(text: str) -> dict[str, str]:
    """`{keyid: public key}` of one key given as hex, or as a file that holds hex or an Ed25519 public key in PEM."""
    given = text.strip()
    if not re.fullmatch(r"[0-9a-fA-F]{64}", given) and Path(text).is_file():
        given = Path(text).read_text(errors="replace").strip()
    if "BEGIN PUBLIC KEY" in given:
        given = from_pem(given)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise Unusable(_("--key must be 64 hex digits, or a file that holds them or an Ed25519 public key in PEM."))
    return {signing.key_id(given): given.lower()}


def from_pem(text: str) -> str:
    """The raw key in hex, or nothing for a PEM that is no Ed25519 public key."""
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return key.public_bytes_raw().hex() if isinstance(key, Ed25519PublicKey) else ""


def keys_kept() -> dict[str, str]:
    """The database's keys."""
    try:
        return keyring.public_keys()
    except DatabaseError:
        sentence = _("The database that holds the keys does not answer. Run `manage.py migrate`, or give --key.")
        raise Unusable(sentence) from None
