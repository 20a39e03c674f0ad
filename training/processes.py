"""Child processes of a job: a group of their own, read line by line, ended with the claim that started them.

The rule: no child outlives its claim. A cancel request or a lost lease kills the group; if the worker itself dies,
the kernel kills the child (PR_SET_PDEATHSIG, where there is one).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from django.conf import settings

BEAT = 3.0  # seconds between two heartbeats
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
TAIL = 20  # lines of a log that are kept for an error
LINE = 65_536  # bytes; a longer line is cut into several
CHILD_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Holder(Protocol):
    """What supervision needs of a claim: `step` renews the lease and raises when the work must stop."""

    def step(self) -> None: ...


def supervise(
    argv: Sequence[str],
    claim: Holder,
    directory: Path,
    on_line: Callable[[str], None] = lambda line: None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs `argv` to its end and returns its exit code (negative: the signal that killed it).

    Every line of its output goes to `directory`/log.txt and to `on_line`. Raises what `claim.step` raises, after the
    whole process group has been killed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "log.txt").open("ab") as log:
        child = _start(argv, environment or {})
        assert child.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(child.stdout, log, lines), daemon=True)
        reader.start()
        try:
            _follow(child, reader, lines, claim, on_line)
        finally:
            _end(child, reader)
    return child.wait()


def log_tail(directory: Path, count: int = TAIL) -> list[str]:
    """The last lines of a job's log; empty when there is none."""
    try:
        with (directory / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LINE))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def _start(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (argv is built by us, never by a shell)
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=settings.ROOT,
        env={**os.environ, **CHILD_ENVIRONMENT, "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
        preexec_fn=functools.partial(_die_with_parent, os.getpid()),
    )


def _die_with_parent(parent: int) -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


def _read(pipe: IO[bytes], log: IO[bytes], lines: queue.SimpleQueue[str]) -> None:
    while line := pipe.readline(LINE):
        try:
            log.write(line)
            log.flush()
        except (OSError, ValueError):  # disk full, or the group is being killed: the child must not block on its pipe
            pass
        lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))


def _follow(
    child: subprocess.Popen[bytes],
    reader: threading.Thread,
    lines: queue.SimpleQueue[str],
    claim: Holder,
    on_line: Callable[[str], None],
) -> None:
    next_beat = time.monotonic() + BEAT
    while child.poll() is None or reader.is_alive() or not lines.empty():
        try:
            on_line(lines.get(timeout=0.1 if child.poll() is None else 0.02))
        except queue.Empty:
            if child.poll() is not None and not _drained(reader):
                return  # a grandchild still holds the pipe; it is killed with the group
        if time.monotonic() >= next_beat:
            claim.step()
            next_beat = time.monotonic() + BEAT


def _drained(reader: threading.Thread) -> bool:
    reader.join(timeout=1)
    return not reader.is_alive()


def _end(child: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    if child.poll() is not None and not reader.is_alive():
        return
    _signal_group(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=GRACE)
    _signal_group(child, signal.SIGKILL)
    child.wait()
    reader.join(timeout=GRACE)


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
