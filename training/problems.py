"""What a person can put right: every such error of this app is a `Problem`, and its text is one clear sentence.

The console, the REST API, the commands and the job runner all show `str(problem)`; anything else is our bug and
keeps its traceback in the log.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.utils.translation import gettext as _


class Problem(Exception):
    """Work that cannot start or go on. `str(problem)` is one sentence in the active language."""


def listed(names: Iterable[object]) -> str:
    """Somebody's names as a sentence can show them: half a surrogate pair among them cannot be encoded."""
    return ", ".join(map(str, names)).encode("utf-8", "backslashreplace").decode() or "-"


class DiskFull(Problem):
    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            _("The disk is full: %(path)s could not be written. Free some space and start again; nothing was kept.")
            % {"path": path}
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `DiskFull` instead of the operating system's error when the block runs out of space."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise DiskFull(path) from error
