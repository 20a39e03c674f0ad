"""The embedded stack for real: `manage.py up` in a process of its own, killed in every way there is."""

import functools
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from paramstack_site import embedded, stack

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the signal at the parent's death is Linux's"),
]
PROGRAMS = {"redis", "web", "worker-default", "worker-gpu", "beat", "ledger_writer", "engine", "engine_agent"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    """`manage.py up` with an environment that sets nothing but its data directory and ports."""

    def __init__(self, var: Path, port: int, engine_port: int) -> None:
        self.var, self.port, self.engine_port = var, port, engine_port
        self.output = var.with_suffix(".out")
        self.process: subprocess.Popen[bytes]

    def environment(self) -> dict[str, str]:
        ports = {"PORT": str(self.port), "ENGINE_PORT": str(self.engine_port)}
        return {"PATH": os.environ["PATH"], "HOME": str(self.var), "PARAMSTACK_VAR": str(self.var), **ports}

    def start(self) -> None:
        """Returns when the address was printed."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(), cwd=settings.ROOT, stdout=output, stderr=subprocess.STDOUT
            )
        wait(lambda: "Ready after" in self.text() or self.process.poll() is not None, 150)
        assert self.process.poll() is None, self.text()

    def command(self) -> list[str]:
        return [sys.executable, "manage.py", "up", "--no-open"]

    def again(self, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment() | changes
        return subprocess.run(
            self.command(), env=environment, cwd=settings.ROOT, capture_output=True, text=True, timeout=60
        )

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def pids(self) -> dict[str, int]:
        return {name: state["pid"] for name, state in stack.states(self.var).items()}

    def supervisor(self) -> int:
        return int((embedded.sockets(self.var) / "supervisord.pid").read_text())

    def processes(self) -> dict[int, str]:
        """Everything that runs with this data directory, descendants in sessions of their own included."""
        mark = f"PARAMSTACK_VAR={self.var}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def status(self, path: str) -> int | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return None


def wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not after {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Up:
    """One installation whose data outlives the starts of this module."""
    return Up(tmp_path_factory.mktemp("stack") / "var", free_port(), free_port())


@pytest.fixture
def up(home: Up) -> Iterator[Up]:
    home.start()
    yield home
    if home.process.poll() is None:
        home.process.send_signal(signal.SIGTERM)
        home.process.wait(40)
    for pid in home.processes():
        os.kill(pid, signal.SIGKILL)


def restarted(up: Up, name: str, old: int) -> bool:
    return up.pids()[name] not in {0, old}


def test_every_program_works_and_comes_back_after_kill_9(up: Up):
    assert set(up.pids()) == PROGRAMS
    assert (up.status("/healthz"), up.status("/v1/models")) == (200, 401)
    for name, pid in up.pids().items():
        os.kill(pid, signal.SIGKILL)
        wait(functools.partial(restarted, up, name, pid), 20)
    wait(lambda: all(state["statename"] == "RUNNING" for state in stack.states(up.var).values()), 60)
    wait(lambda: up.status("/v1/models") == 401, 30)


def test_nobody_else_can_reach_redis_and_a_second_start_keeps_its_data(up: Up):
    path = embedded.socket(up.var)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent, up.var / "redis")] == [0o700] * 3
    with redis.Redis.from_url(embedded.url(up.var)) as client:
        kept = client.config_get("appendonly") | client.config_get("maxmemory-policy") | client.config_get("port")
        client.set("test:kept", "yes")
    assert kept == {"appendonly": "yes", "maxmemory-policy": "noeviction", "port": "0"}
    up.process.send_signal(signal.SIGTERM)
    up.process.wait(40)
    up.start()
    with redis.Redis.from_url(embedded.url(up.var)) as client:
        assert client.get("test:kept") == b"yes"


def test_a_second_stack_and_a_taken_port_are_said_plainly(up: Up, tmp_path: Path):
    same = up.again()
    assert same.returncode == 1
    assert f"Param Stack already runs here: http://127.0.0.1:{up.port} (process {up.process.pid})" in same.stderr
    other = up.again(PARAMSTACK_VAR=str(tmp_path / "other"))
    assert other.returncode == 1
    assert f"Port {up.port} is taken by another program. Choose another one with PORT" in other.stderr
    engine = up.again(PARAMSTACK_VAR=str(tmp_path / "other"), PORT=str(free_port()))
    assert f"Port {up.engine_port} is taken by another program. Choose another one with ENGINE_PORT" in engine.stderr
    assert "Traceback" not in same.stderr + other.stderr + engine.stderr


TRAIN = """
from tenants.models import Tenant
from training import runs
runs.build_base(Tenant.objects.get_or_create(slug="acme", name="Acme")[0], None, name="{name}")
"""


def train(up: Up, name: str) -> None:
    """Starts a real training program: the gpu worker's grandchild, in a session of its own."""
    command = [sys.executable, "manage.py", "shell", "--verbosity=0", "--command", TRAIN.format(name=name)]
    subprocess.run(command, env=up.environment(), cwd=settings.ROOT, check=True, timeout=60)
    wait(lambda: any("training.dpo.pretrain" in command for command in up.processes().values()), 60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_the_command_gets(up: Up, number: signal.Signals):
    train(up, number.name.lower())
    os.kill(up.process.pid, number)
    up.process.wait(40)
    wait(lambda: not up.processes(), 30)


def test_no_process_is_left_when_the_supervisor_is_killed(up: Up):
    train(up, "supervisor")
    os.kill(up.supervisor(), signal.SIGKILL)
    assert up.process.wait(40) == 1
    assert "The supervisor ended on its own" in up.text()
    wait(lambda: not up.processes(), 10)
