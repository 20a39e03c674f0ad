"""The key of an engine: made at each of its starts, kept in a file that only its owner reads, known by no one else."""

from __future__ import annotations

import os
import secrets
from functools import lru_cache
from pathlib import Path


def renew(path: Path) -> str:
    """A new key in `path`, mode 0600; whoever reads at the same time gets the old one or the new one, whole."""
    key = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    draft.replace(path)
    return key


def read(path: Path) -> str:
    """The key in `path`, read again only when the file is another one; empty where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return _text(path, found.st_ino, found.st_mtime_ns)


@lru_cache(maxsize=16)
def _text(path: Path, inode: int, changed_ns: int) -> str:
    return path.read_text().strip()
