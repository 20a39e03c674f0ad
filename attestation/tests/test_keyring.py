"""One current key, encrypted at rest."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction

from attestation import keyring, signing
from attestation.models import SigningKey


@pytest.mark.django_db
def test_the_first_use_creates_the_key_and_the_second_finds_it():
    assert keyring.current() == keyring.current() == SigningKey.objects.get()


@pytest.mark.django_db
def test_the_private_half_opens_and_fits_the_public_half():
    key = keyring.current()
    assert signing.public_hex(keyring.private_key(key)) == key.public_key
    assert signing.key_id(key.public_key) == key.key_id


@pytest.mark.django_db
def test_the_private_half_is_not_stored_in_the_open():
    key = keyring.current()
    raw = keyring.private_key(key).private_bytes_raw()
    assert raw.hex() not in key.encrypted_private_key
    assert raw not in base64.b64decode(key.encrypted_private_key)


@pytest.mark.django_db
def test_another_master_key_opens_nothing(settings):
    key = keyring.current()
    settings.MASTER_KEY = "another"
    with pytest.raises(keyring.Locked, match="MASTER_KEY"):
        keyring.private_key(key)


@pytest.mark.django_db
def test_a_private_half_moved_to_another_row_does_not_open():
    key = keyring.current()
    key.key_id = "0" * 64
    with pytest.raises(keyring.Locked):
        keyring.private_key(key)


@pytest.mark.django_db
def test_a_revoked_key_verifies_nothing_and_signs_nothing():
    old = keyring.current()
    keyring.revoke(old.key_id)
    keyring.revoke(old.key_id)
    new = keyring.current()
    assert keyring.public_keys() == {new.key_id: new.public_key}
    assert new != old


@pytest.mark.django_db
def test_the_database_itself_refuses_a_second_current_key():
    keyring.current()
    with pytest.raises(IntegrityError), transaction.atomic():
        SigningKey.objects.create(key_id="1", public_key="1", encrypted_private_key="", is_current=True)


@pytest.mark.django_db
def test_whoever_comes_second_takes_the_key_of_the_first(monkeypatch):
    """The other process acts between our look and our insert."""
    generate = signing.generate

    def interrupted():
        monkeypatch.undo()
        keyring.current()
        return generate()

    monkeypatch.setattr(signing, "generate", interrupted)
    assert keyring.current() == SigningKey.objects.get()


@pytest.mark.processes
def test_processes_that_race_agree_on_one_key(tmp_path):
    """Four processes, one SQLite file, released together."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "paramstack_site.settings.test",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'race.sqlite3'}",
    }
    root = Path(__file__).resolve().parents[2]
    migrate = [sys.executable, "manage.py", "migrate", "attestation", "-v0", "--skip-checks"]
    subprocess.run(migrate, env=environment, cwd=root, check=True)
    program = (
        "import django, sys; django.setup(); from attestation import keyring; print('ready', flush=True); "
        "sys.stdin.readline(); print(keyring.current().key_id)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert len({racer.communicate(timeout=60)[0] for racer in racers}) == 1
    assert [racer.returncode for racer in racers] == [0] * 4
