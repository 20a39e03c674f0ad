"""Runs a command that cannot outlive its parent: `python -I -S child.py SIGNAL COMMAND...`.

The kernel sends SIGNAL to the process when the parent dies, however it dies (Linux; elsewhere only an orderly stop
is covered). Standard library only, and no import of the house: this runs before every process of the stack.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
# Every wrapped process names itself here for those it starts. Without it a parent that died before prctl() ran
# would go unnoticed: the new parent (init, or a subreaper) looks like any other.
PARENT = "PARAMSTACK_PARENT"


def die_with_parent(number: int, parent: int) -> None:
    """Ask for signal `number` when the parent dies; exits at once when `parent` is already gone.

    The signal follows the *thread* that forked: start children from threads that live as long as the process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + number)


def wrap(number: signal.Signals, command: list[str]) -> list[str]:
    """`command`, started through this file."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), number.name, *command]


def main(arguments: list[str]) -> None:
    name, *command = arguments
    die_with_parent(int(signal.Signals[name]), int(os.environ.get(PARENT) or os.getppid()))
    os.environ[PARENT] = str(os.getpid())
    os.execvp(command[0], command)  # noqa: S606  (the command is ours, without a shell)


if __name__ == "__main__":
    main(sys.argv[1:])
