"""The product's web server in a process of its own, on the database of the tests.

Not pytest-django's `live_server`: its threads would run requests in the process where playwright suspends greenlets,
and the interpreter dies of the two together.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.db import connection

from paramstack_site import child, programs, readiness

READY = 60.0  # seconds
NOBODY = "http://127.0.0.1:1"  # an engine's address at which none listens


@contextmanager
def running(redis_url: str, log: Path) -> Iterator[str]:
    """The address of a server that answers; its output goes to `log`."""
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # It inherits the listening socket: nobody else can take the port meanwhile.
        process = subprocess.Popen(
            child.wrap(signal.SIGKILL, [*programs.web_command(), "--fd", str(listener.fileno())]),
            env=environment(redis_url),
            cwd=settings.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
        )
    try:
        wait(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(programs.PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment(redis_url: str) -> dict[str, str]:
    """What makes the server's settings those of the tests."""
    return programs.environment(settings.VAR) | {
        "DJANGO_SETTINGS_MODULE": "paramstack_site.settings.test",
        "DATABASE_URL": database_url(),
        "REDIS_URL": redis_url,
        "ENGINE_URL": NOBODY,
        child.PARENT: str(os.getpid()),
    }


def database_url() -> str:
    """The address of the database that this process tests on, as DATABASE_URL gives it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(name)}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{quote(name)}").geturl()


def wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + READY
    while readiness.status(f"{address}/healthz") != 200:
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, f"no answer after {READY:.0f} s: {log.read_text(errors='replace')}"
        time.sleep(0.1)
