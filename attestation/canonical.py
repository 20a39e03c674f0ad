"""One byte sequence, and so one digest, for a text, a JSON value or a directory. Pure: knows no Django.

Rule: what cannot be signed without doubt (a symlink, a device, a name that is not UTF-8, a JSON object that says
a key twice) is refused, never skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import rfc8785

ENVELOPE_NAME = "attestation.json"  # lies beside the files it signs, so the manifest leaves it out


class Entry(TypedDict):
    """One signed file: POSIX path relative to the directory, SHA-256 in hex, size in bytes."""

    path: str
    sha256: str
    size: int


class UnsignableFile(Exception):
    """A directory holds something that no manifest can describe."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is not a regular file with a UTF-8 name.")


def json_bytes(value: Any) -> bytes:
    """The RFC 8785 (JCS) form of `value`. Raises ValueError for NaN, integers beyond 2^53-1 and non-string keys."""
    return rfc8785.dumps(value)


def parse(text: bytes) -> Any:
    """JSON read strictly: a repeated key, NaN or absurd nesting is a ValueError, because parsers disagree on them."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def text_digest(text: str) -> str:
    """SHA-256 in hex of the NFC form in UTF-8: "ı" typed in two ways is one text."""
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).hexdigest()


def manifest(path: Path | str) -> list[Entry]:
    """Every file below the directory `path`, sorted by the bytes of its name; empty directories do not count.

    Raises UnsignableFile for symlinks and anything else that is not a regular file, OSError for what cannot be read.
    """
    root = Path(path)
    entries = [_entry(root, file) for file in _files(root) if file != root / ENVELOPE_NAME]
    return sorted(entries, key=lambda entry: entry["path"].encode())


def digest(files: list[Entry]) -> str:
    """SHA-256 in hex of the manifest's RFC 8785 bytes: the digest of a whole directory."""
    return hashlib.sha256(json_bytes(files)).hexdigest()


def _files(root: Path) -> Iterator[Path]:
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    pending.append(Path(item.path))
                elif item.is_file(follow_symlinks=False):
                    yield Path(item.path)
                else:
                    raise UnsignableFile(str(Path(item.path).relative_to(root)))


def _entry(root: Path, file: Path) -> Entry:
    name = file.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnsignableFile(name) from None
    # O_NOFOLLOW: a file swapped for a link between the scan and this line is refused as well.
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"path": name, "sha256": sha256, "size": stream.tell()}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object says the same key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
