"""A small directory, signed with a key of the test's own and no database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from attestation import canonical, signing, statements

FILES = {"adapter_config.json": b'{"r": 8}', "weights/model.safetensors": bytes(range(256)) * 8, "README.md": b"ok"}


class Signed(NamedTuple):
    """A directory, its envelope and the keys that verify it."""

    path: Path
    envelope: dict[str, Any]
    keys: dict[str, str]

    @property
    def public(self) -> str:
        return next(iter(self.keys.values()))


def write(path: Path) -> Path:
    for name, content in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def document(path: Path, **changes: Any) -> dict[str, Any]:
    """An in-toto statement about `path`, built here from the published format and not by `statements`."""
    files = canonical.manifest(path)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "acme.destek-v1", "digest": {"sha256": canonical.digest(files)}}],
        "predicateType": statements.ADAPTER,
        "predicate": {"files": files},
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Signed:
    """Signed without a database."""
    path = write(tmp_path / "adapter")
    private = signing.generate()
    payload = canonical.json_bytes(document(path))
    envelope = signing.sign_envelope(private, signing.PAYLOAD_TYPE, payload)
    (path / canonical.ENVELOPE_NAME).write_bytes(canonical.json_bytes(envelope))
    public = signing.public_hex(private)
    return Signed(path, envelope, {signing.key_id(public): public})
