"""The store of artefacts: directories addressed by the digest of their signed manifest, in a folder or elsewhere.

Whatever fsspec opens will do: a path, or s3://bucket/prefix with s3fs installed. The store is trusted with nothing:
what comes out is hashed while it is copied, and must be what was signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import fsspec
from django.conf import settings

from attestation import canonical
from attestation.canonical import Entry
from attestation.signing import VerificationError, gettext_noop

CHUNK = 1 << 20  # bytes read at a time
CHANGED = gettext_noop("{path} in the store of artefacts is not the file that was signed.")


class Store:
    """`url` is a path or an address of fsspec's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")

    def put(self, path: Path | str, files: Sequence[Entry], digest: str) -> None:
        """Copies the directory `path`, whose manifest is `files`; what is there as signed is left. Raises OSError."""
        there = self.found(files, digest)
        names = [entry["path"] for entry in files if entry not in there]
        for name in [*names, canonical.ENVELOPE_NAME]:
            target = f"{self._place(digest)}/{name}"
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            with (Path(path) / name).open("rb") as stream, self._files.open(target, "wb") as sink:
                shutil.copyfileobj(stream, sink, CHUNK)

    def found(self, files: Sequence[Entry], digest: str) -> list[Entry]:
        """What the store has of `files` under `digest`, read and hashed now; raises OSError."""
        there = []
        for entry in files:
            with contextlib.suppress(FileNotFoundError):
                there.append(self._copy(f"{self._place(digest)}/{entry['path']}", entry["path"], None))
        return there

    def fetch(self, files: Sequence[Entry], digest: str, into: Path) -> None:
        """Makes the directory `into`, read-only, with exactly `files`; nothing is left if one is not as signed.

        Raises VerificationError or OSError.
        """
        into.parent.mkdir(parents=True, exist_ok=True)
        place, draft = self._place(digest), Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        try:
            for entry in files:
                target = draft / entry["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as sink:
                    found = self._copy(f"{place}/{entry['path']}", entry["path"], sink)
                if found != entry:
                    raise VerificationError("files", CHANGED, path=entry["path"])
                target.chmod(0o444)
            for directory in (draft, *(one for one in draft.rglob("*") if one.is_dir())):
                directory.chmod(0o555)
            draft.rename(into)
        except BaseException:
            remove(draft)
            raise

    def local(self, digest: str) -> Path:
        """Where a store in a folder keeps it."""
        return Path(self._place(digest))

    def _place(self, digest: str) -> str:
        return f"{self._root}/{digest}"

    def _copy(self, source: str, name: str, sink: IO[bytes] | None) -> Entry:
        """Reads a file, into `sink` if there is one; answers what it was."""
        hashed, size = hashlib.sha256(), 0
        with self._files.open(source, "rb") as stream:
            for chunk in _chunks(stream):
                hashed.update(chunk)
                size += len(chunk)
                if sink:
                    sink.write(chunk)
        return {"path": name, "sha256": hashed.hexdigest(), "size": size}


def store() -> Store:
    """The one that the settings name."""
    return _opened(str(settings.ARTIFACT_STORE))


def remove(directory: Path) -> None:
    """Takes away a directory that `fetch` made; one that is not there is no error."""
    if directory.exists():
        for one in (directory, *(one for one in directory.rglob("*") if one.is_dir())):
            one.chmod(0o755)
        shutil.rmtree(directory)


@lru_cache(maxsize=4)
def _opened(url: str) -> Store:
    return Store(url)


def _chunks(stream: Any) -> Iterator[bytes]:
    return iter(lambda: stream.read(CHUNK), b"")
