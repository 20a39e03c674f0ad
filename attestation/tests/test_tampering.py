"""Random tampering, seeded, judged twice: by the product, and by a second verifier written from docs/attestation.md."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation import canonical, log, receipts, signing, statements, verify

SEED, ROUNDS = 20261125, 300


def second_opinion(path: Path, public_key: str) -> bool:
    """Whether `path` is what was signed: the published format in twelve lines, sharing no code with the product."""
    try:
        envelope = json.loads((path / "attestation.json").read_bytes())
        kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, message)
        statement = json.loads(payload)
    except Exception:
        return False
    files = sorted(p for p in path.rglob("*") if not p.is_dir() or p.is_symlink())
    names = {p.relative_to(path).as_posix(): p for p in files if p != path / "attestation.json"}
    signed = {entry["path"]: entry["sha256"] for entry in statement["predicate"]["files"]}
    plain = not any(p.is_symlink() for p in files)
    return plain and signed == {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in names.items()}


def flip(chance: random.Random, content: bytes) -> bytes:
    """One random bit of one random byte changes."""
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def any_file(chance: random.Random, path: Path) -> Path:
    return path / chance.choice(canonical.manifest(path))["path"]


def change_a_bit(chance: random.Random, path: Path) -> None:
    file = any_file(chance, path)
    file.write_bytes(flip(chance, file.read_bytes()))


def change_the_length(chance: random.Random, path: Path) -> None:
    file = any_file(chance, path)
    content = file.read_bytes()
    file.write_bytes(content + b"\0" if chance.random() < 0.5 else content[: chance.randrange(len(content))])


def remove(chance: random.Random, path: Path) -> None:
    any_file(chance, path).unlink()


def rename(chance: random.Random, path: Path) -> None:
    file = any_file(chance, path)
    file.rename(file.with_name(f"{chance.randrange(10**6)}"))


def add(chance: random.Random, path: Path) -> None:
    directory = chance.choice([path, path / "weights"])
    (directory / chance.choice(["x", ".hidden", "ı.bin", "attestation.json~"])).write_bytes(chance.randbytes(3))


def link(chance: random.Random, path: Path) -> None:
    file = any_file(chance, path)
    moved = shutil.move(file, path.parent / f"moved-{chance.randrange(10**6)}")
    file.symlink_to(moved)


def swap(chance: random.Random, path: Path) -> None:
    one, other = (path / entry["path"] for entry in chance.sample(canonical.manifest(path), 2))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


FILE_TAMPERING: list[Callable[[random.Random, Path], None]] = [
    change_a_bit,
    change_the_length,
    remove,
    rename,
    add,
    link,
    swap,
]


def product_accepts(path: Path, keys: dict[str, str]) -> bool:
    try:
        verify.directory(path, canonical.parse((path / canonical.ENVELOPE_NAME).read_bytes()), keys)
    except (signing.VerificationError, ValueError):
        return False
    return True


def test_tampering_with_files_is_always_caught(folder, tmp_path):
    chance = random.Random(SEED)
    assert product_accepts(folder.path, folder.keys)
    assert second_opinion(folder.path, folder.public)
    for number in range(ROUNDS):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(folder.path, copy)
        chance.choice(FILE_TAMPERING)(chance, copy)
        assert not product_accepts(copy, folder.keys), number
        assert not second_opinion(copy, folder.public), number


def test_tampering_with_the_envelope_is_always_caught(folder):
    chance = random.Random(SEED)
    file = folder.path / canonical.ENVELOPE_NAME
    untouched = file.read_bytes()
    for number in range(4 * ROUNDS):
        file.write_bytes(flip(chance, untouched))
        assert not product_accepts(folder.path, folder.keys), number


def test_tampering_with_a_receipt_is_always_caught(folder):
    chance = random.Random(SEED)
    rows = [{"request_id": f"req_{i}", "cost_nano": chance.randrange(10**15)} for i in range(7)]
    root = log.root([receipts.leaf(row) for row in rows]).hex()
    private = signing.generate()
    public = signing.public_hex(private)
    batch = {
        "_type": verify.STATEMENT_TYPE,
        "subject": [{"name": "batch", "digest": {"sha256": root}}],
        "predicateType": statements.LEDGER_BATCH,
        "predicate": {"size": len(rows)},
    }
    envelope = signing.sign_envelope(private, signing.PAYLOAD_TYPE, canonical.json_bytes(batch))
    keys = {signing.key_id(public): public}
    for number in range(4 * ROUNDS):
        untouched = canonical.json_bytes(receipts.issue(rows, number % len(rows), envelope))
        receipts.verify(canonical.parse(untouched), keys)
        with pytest.raises((signing.VerificationError, ValueError)):
            receipts.verify(canonical.parse(flip(chance, untouched)), keys)
