"""The embedded stack: every process of Param Stack on one machine, under supervisord.

`start()` checks what would go wrong later (space, ports, migrations), starts supervisord as a child and answers a
Stack. Leaving it stops everything in good order; a `kill -9` of this process or of supervisord leaves nothing behind
either, because every process dies with its parent (`child.py`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from supervisor.xmlrpc import SupervisorTransport

from paramstack_site import child, embedded, logs, programs, readiness

SPACE = 500 * 1024 * 1024  # bytes that must be free under var/
READY = 300.0 if settings.ENGINE == "vllm" else 120.0  # seconds until every program must have answered once
STOPPED = 25.0  # seconds until everything must have ended in good order


class StackError(CommandError):
    """The stack cannot start or go on; the message is a sentence for the person at the terminal."""


class AlreadyRunning(StackError):
    def __init__(self, pid: str) -> None:
        self.pid = pid
        super().__init__(f"Param Stack already runs here: {address()} (process {pid}). Stop that one first.")


class PortTaken(StackError):
    def __init__(self, port: int, setting: str) -> None:
        self.port, self.setting = port, setting
        super().__init__(
            f"Port {port} is taken by another program. Choose another one with {setting}, "
            f"for example {setting}={port + 10} make up"
        )


class NoSpace(StackError):
    def __init__(self, path: Path, free: int) -> None:
        super().__init__(
            f"Only {free // 1024**2} MB are free under {path}; {SPACE // 1024**2} MB are needed. Free some space, or "
            "set PARAMSTACK_VAR to a directory on a larger disk."
        )


class NoDatabase(StackError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"The database cannot be used: {reason}. DATABASE_URL sets its address.")


class NotReady(StackError):
    def __init__(self, missing: list[str], var: Path) -> None:
        self.missing = missing
        files = " ".join(str(programs.log(var, name)) for name in missing)
        super().__init__(f"Not ready after {READY:.0f} s: {', '.join(missing)}. Look into {files}")


class SupervisorDied(StackError):
    def __init__(self, var: Path) -> None:
        super().__init__(f"The supervisor ended on its own. Look into {programs.log(var, 'supervisor')}")


def address() -> str:
    return f"http://{settings.HOST}:{settings.PORT}"


def start(var: Path | None = None, echo: bool = False) -> Stack:
    """Starts every program and answers at once; `echo` prints the merged log from the first line on.

    Call it from the main thread: the processes die with the thread that starts them.
    """
    var = Path(var or settings.VAR).resolve()
    lock = only_one(var)
    try:
        wait_for_former(var)
        check_space(var)
        check_ports()
        migrate()
        (var / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
        conf = var / "supervisord.conf"
        conf.write_text(programs.configuration(var))
        return Stack(var, lock, conf, echo)
    except BaseException:
        lock.close()
        raise


def only_one(var: Path) -> TextIO:
    """The lock of this installation; closing the file gives it back, and so does the holder's death."""
    var.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (var / "stack.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise AlreadyRunning(holder) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def wait_for_former(var: Path) -> None:
    """After a kill -9 of the command that held it, the former supervisor takes some seconds to stop everything."""
    deadline = time.monotonic() + STOPPED
    while supervisor_listens(var):
        if time.monotonic() > deadline:
            raise AlreadyRunning((embedded.sockets(var) / "supervisord.pid").read_text().strip())
        time.sleep(0.2)


def supervisor_listens(var: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(embedded.sockets(var) / "supervisor.sock")) == 0


def check_space(var: Path) -> None:
    free = shutil.disk_usage(var).free
    if free < SPACE:
        raise NoSpace(var, free)


def check_ports() -> None:
    wanted = [(settings.HOST, settings.PORT, "PORT")]
    if settings.ENGINE_EMBEDDED:
        wanted.append(("127.0.0.1", settings.ENGINE_PORT, "ENGINE_PORT"))
    for host, port, setting in wanted:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                raise PortTaken(port, setting) from None


def migrate() -> None:
    """Applies what is missing; asks first, because `migrate` itself takes a second when there is nothing to do."""
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False, verbosity=0)
    except DatabaseError as error:
        raise NoDatabase(str(error).strip()) from error
    finally:
        connection.close()


def states(var: Path) -> dict[str, dict[str, Any]]:
    """What the supervisor says of each program: `statename`, `pid`, `description` and more. OSError: nobody runs."""
    transport = SupervisorTransport(None, None, f"unix://{embedded.sockets(var) / 'supervisor.sock'}")
    found: Any = xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor.getAllProcessInfo()
    return {process["name"]: process for process in found}


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


class Stack:
    """The running stack, a context manager: leaving it stops everything."""

    def __init__(self, var: Path, lock: TextIO, conf: Path, echo: bool) -> None:
        self.var, self.lock = var, lock
        self.names = [program.name for program in programs.programs(var)]
        self.printer: logs.Printer | None = None
        # SIGINT too: a shell's background job inherits it as ignored, and must end by it all the same.
        ending = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: interrupted, signal.SIGHUP: interrupted}
        self.handlers = {number: signal.signal(number, handler) for number, handler in ending.items()}
        if echo:
            self.echo()
        command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(conf)]
        # A session of its own: Ctrl-C reaches this process only, which then stops the others in order.
        self.process = subprocess.Popen(  # noqa: S603  (our own command, without a shell)
            child.wrap(signal.SIGTERM, command),
            env=programs.environment(var) | {child.PARENT: str(os.getpid())},
            cwd=settings.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is KeyboardInterrupt:
            raise SystemExit(130) from None

    def echo(self) -> None:
        """From now on prints the merged log."""
        if self.printer is None:
            paths = {name: programs.log(self.var, name) for name in [*self.names, "supervisor"]}
            self.printer = logs.Printer(paths, sys.stdout)
            self.printer.start()

    def wait_ready(self, timeout: float = READY) -> None:
        """Until every program works; prints a line for each. Raises NotReady or SupervisorDied."""
        began = time.monotonic()
        waiting = readiness.checks() | {"beat": lambda: self.runs("beat")}
        while waiting:
            for name in [name for name, check in waiting.items() if check()]:
                del waiting[name]
                print(f"  {name:<15} ready after {time.monotonic() - began:.1f} s", flush=True)
            if self.process.poll() is not None:
                raise SupervisorDied(self.var)
            if waiting and time.monotonic() - began > timeout:
                raise NotReady(list(waiting), self.var)
            time.sleep(0.1)

    def runs(self, name: str) -> bool:
        try:
            return bool(states(self.var)[name]["statename"] == "RUNNING")
        except (OSError, KeyError, xmlrpc.client.Error):
            return False

    def stay(self) -> None:
        """Prints the merged log until Ctrl-C, SIGTERM, or the end of the supervisor (SupervisorDied)."""
        self.echo()
        self.process.wait()
        raise SupervisorDied(self.var)

    def stop(self) -> None:
        """Stops everything in good order; a second Ctrl-C, or too long a wait, kills."""
        self.process.terminate()
        try:
            self.process.wait(STOPPED)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()
        if self.printer is not None:
            self.printer.finish()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.lock.close()
