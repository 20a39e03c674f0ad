"""`manage.py verify`: a plain sentence and an exit code, whatever it is given."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.management import call_command
from django.utils import translation

from attestation import canonical, keyring, receipts, signing, statements, verdicts, verify


def verdict(*arguments):
    """(exit code, everything it wrote)."""
    written = io.StringIO()
    try:
        with translation.override("en"):
            call_command("verify", *map(str, arguments), stdout=written, stderr=written)
    except SystemExit as stop:
        return stop.code, written.getvalue()
    return 0, written.getvalue()


def pem(public):
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_with_a_key_it_needs_no_database(folder):
    """pytest-django forbids the database here."""
    code, text = verdict(folder.path, "--key", folder.public)
    assert code == 0
    assert "Verified: acme.destek-v1 is exactly what was signed (files: 3," in text
    assert "revoked" in text


def test_the_key_may_be_a_file_of_hex_or_pem(folder, tmp_path):
    kept = tmp_path / "key"
    kept.write_text(folder.public.upper() + "\n")
    assert verdict(folder.path, "--key", kept)[0] == 0
    kept.write_text(pem(ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(folder.public))))
    assert verdict(folder.path, "--key", kept)[0] == 0


@pytest.mark.django_db
def test_without_a_key_it_asks_the_database(folder):
    statements.sign_directory("acme", statements.ADAPTER, "acme.destek-v1", folder.path, {})
    assert verdict(folder.path)[0] == 0
    assert verdict(folder.path / "adapter_config.json")[0] == 0
    keyring.revoke(keyring.current().key_id)
    code, text = verdict(folder.path)
    assert code == 1
    assert "not among the known keys" in text


@pytest.mark.django_db
def test_a_receipt_verifies_and_a_changed_one_does_not(tmp_path):
    rows = [{"request_id": "req_1", "cost_nano": 5}, {"request_id": "req_2", "cost_nano": 6}]
    receipt = receipts.issue(rows, 1, receipts.seal("acme", "batch 1", rows).envelope)
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    code, text = verdict(file)
    assert (code, text) == (0, "Verified: the row req_2 is in the signed batch batch 1 of 2 rows.\n")
    file.write_text(json.dumps(receipt | {"row": rows[0]}))
    code, text = verdict(file)
    assert code == 1
    assert "The row is not the one in the signed batch. Do not use it" in text


def test_a_tampered_file_is_named_with_what_to_do(folder):
    (folder.path / "README.md").write_text("no")
    code, text = verdict(folder.path, "--key", folder.public)
    assert code == 1
    assert "Changed: README.md. Missing: –. Added: –. Do not use it; get a fresh copy" in text


def test_an_envelope_kept_elsewhere_is_used(folder, tmp_path):
    moved = (folder.path / canonical.ENVELOPE_NAME).rename(tmp_path / "kept.json")
    code, text = verdict(folder.path, "--key", folder.public)
    assert code == 1
    assert "attestation.json is missing. Give it with --envelope." in text
    assert verdict(folder.path, "--key", folder.public, "--envelope", moved)[0] == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "is not valid JSON"), ("", "is not valid JSON"), ("[]", "This is not a receipt."), ("{}", "not a receipt")],
)
def test_a_file_that_is_no_receipt_is_said_plainly(tmp_path, content, sentence):
    file = tmp_path / "receipt.json"
    file.write_text(content)
    code, text = verdict(file, "--key", "00" * 32)
    assert code == 1
    assert sentence in text
    assert "fresh copy" in text


def test_a_broken_envelope_is_said_plainly(folder):
    (folder.path / canonical.ENVELOPE_NAME).write_text("not json")
    code, text = verdict(folder.path, "--key", folder.public)
    assert code == 1
    assert "attestation.json is not valid JSON" in text


@pytest.mark.parametrize("path", ["absent", "absent/receipt.json"])
def test_a_path_that_is_not_there_is_said_plainly(tmp_path, path):
    code, text = verdict(tmp_path / path, "--key", "00" * 32)
    assert code == 1
    assert text.startswith("There is no file or directory")


@pytest.mark.parametrize("key", ["", "abc", "zz" * 32, pem(ec.generate_private_key(ec.SECP256R1()).public_key())])
def test_a_key_that_is_none_is_said_plainly(folder, tmp_path, key):
    kept = tmp_path / "key"
    kept.write_text(key)
    for given in (kept, key or "absent"):
        code, text = verdict(folder.path, "--key", given)
        assert code == 1
        assert text.startswith("--key must be 64 hex digits")


def test_another_key_is_said_plainly(folder):
    code, text = verdict(folder.path, "--key", "00" * 32)
    assert code == 1
    assert "not among the known keys. If you trust its owner" in text


@pytest.mark.processes
def test_a_database_that_is_not_there_is_said_plainly(folder, tmp_path):
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "paramstack_site.settings.test",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'absent' / 'db.sqlite3'}",
    }
    command = [sys.executable, "manage.py", "verify", str(folder.path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--key" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.django_db
def test_the_public_keys_are_printed_for_whoever_verifies_elsewhere():
    written = io.StringIO()
    public = keyring.current().public_key
    call_command("public_keys", stdout=written)
    assert written.getvalue() == public + "\n"


def test_the_verdict_speaks_the_reader_s_language(folder):
    statement = verify.directory(folder.path, folder.envelope, folder.keys)
    with translation.override("tr"):
        assert verdicts.approval(statement).startswith("Doğrulandı: acme.destek-v1 tam olarak imzalandığı gibi")
        (folder.path / "README.md").unlink()
        with pytest.raises(signing.VerificationError) as caught:
            verify.directory(folder.path, folder.envelope, folder.keys)
        assert verdicts.refusal(caught.value).startswith("Dosyalar imzalananlar değil. Değişen: –. Eksik: README.md.")
