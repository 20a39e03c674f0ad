"""Runs a command that leaves nothing behind: `python -I -S keeper.py COMMAND...`.

vLLM is a server with a process for the model and one for each device. A killed server leaves the others in memory, so
whoever waits for it here ends its whole process group; and when the keeper itself is killed, the server is told to stop
in good order and stops its own. Standard library only.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def stop_with(parent: int) -> None:
    """SIGTERM for this process when `parent` dies (Linux; elsewhere only an orderly stop is covered)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def keep(command: Sequence[str]) -> int:
    """The exit status of `command`, once nothing of its process group is left."""
    me = os.getpid()
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # none may come before there is somebody to pass it on to

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        stop_with(me)

    process = subprocess.Popen(command, start_new_session=True, preexec_fn=prepare)  # noqa: S603  (ours, no shell)
    for number in signals:
        signal.signal(number, lambda *_: process.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    status = process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
