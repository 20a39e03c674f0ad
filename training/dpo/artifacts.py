"""How the training programs talk and write: progress as JSON lines, files whole or not at all, refusals as exit 2."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.dpo.config import Refusal


def say(stage: str, done: int, total: int, **facts: object) -> None:
    """One progress line on stdout: `{"stage", "done", "total", ...}`. Whoever supervises the process reads it."""
    print(json.dumps({"stage": stage, "done": done, "total": total, **facts}), flush=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A directory to write into; it appears at `path` when the block ends well, and is gone when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield draft
        draft.chmod(0o755)
        for file in draft.rglob("*"):
            _sync(file)
        shutil.rmtree(path, ignore_errors=True)
        draft.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """One JSON file, whole or not at all."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        _sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def run(program: Callable[[], None]) -> int:
    """The exit code of `program`: 0, or 2 with one sentence on stderr when a person can mend what is wrong."""
    try:
        program()
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except Exception as error:
        if not _disk_full(error):
            raise
        print("The disk is full: free some space and start again. Nothing was kept of this run.", file=sys.stderr)
        return 2
    return 0


def _disk_full(error: BaseException) -> bool:
    # safetensors reports its writer's error as text of a class of its own
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    return full or "No space left on device" in str(error)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
