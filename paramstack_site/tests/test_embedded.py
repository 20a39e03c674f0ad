"""Where the bundled server listens, and what the supervisor is told to run."""

import configparser
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from paramstack_site import child, embedded, programs


@pytest.fixture
def bundled(tmp_path: Path):
    """A bundled server in a directory whose path is far longer than a Unix socket's may be."""
    var = tmp_path / ("uzun-" * 30) / "with space"
    process = subprocess.Popen(embedded.command(var))
    yield var
    process.terminate()
    process.wait(10)
    for path in embedded.sockets(var).iterdir():
        path.unlink()
    embedded.sockets(var).rmdir()


def test_a_long_path_moves_the_socket_to_a_short_private_directory(bundled: Path):
    directory = embedded.sockets(bundled)
    assert len(str(directory / "supervisor.sock.4194304")) <= 107
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)
    errors = [redis.ConnectionError, FileNotFoundError]
    with redis.Redis.from_url(embedded.url(bundled), retry=retry, retry_on_error=errors) as client:
        assert client.ping()


def test_a_short_path_keeps_the_socket_with_the_data(tmp_path: Path):
    assert embedded.sockets(Path("/srv/stack")) == Path("/srv/stack/run")
    assert embedded.url(Path("/srv/my stack")) == "unix:///srv/my%20stack/run/redis.sock"


def test_a_directory_that_leads_elsewhere_is_refused(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(embedded.UnsafeDirectory, match="must be a directory of yours with mode 0700"):
        embedded.private(tmp_path / "run")


def test_a_directory_that_others_may_enter_is_closed(tmp_path: Path):
    (tmp_path / "run").mkdir(mode=0o777)
    assert stat.S_IMODE(embedded.private(tmp_path / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["var", "50% off", "with space", "it's"])
def test_the_supervisor_reads_every_path_as_it_is(tmp_path: Path, name: str, settings):
    settings.REDIS_EMBEDDED, settings.ENGINE_EMBEDDED = True, True
    settings.ENGINE_MODEL = tmp_path / name / "models" / "demo-base"
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(programs.configuration(tmp_path / name))
    command = shlex.split(parser["program:engine"]["command"])
    assert command[-4:] == ["--model", str(settings.ENGINE_MODEL), "--port", str(settings.ENGINE_PORT)]
    assert parser["program:redis"]["stdout_logfile"] == str(tmp_path / name / "log" / "redis.log")
    assert parser["group:stack"]["programs"] == "web,worker-default,worker-gpu,beat,ledger_writer,engine,engine_agent"


def test_one_setting_puts_vllm_in_place_of_the_embedded_engine(tmp_path: Path, settings):
    settings.ENGINE_EMBEDDED, settings.ENGINE = True, "vllm"
    command = next(one.command for one in programs.programs(tmp_path) if one.name == "engine")
    assert command[1:3] == [str(settings.ROOT / "manage.py"), "launch_vllm"]
    assert command[-4:] == ["--model", str(settings.ENGINE_MODEL), "--port", str(settings.ENGINE_PORT)]


def test_what_has_an_address_elsewhere_is_not_started_here(tmp_path: Path, settings):
    settings.REDIS_EMBEDDED, settings.ENGINE_EMBEDDED = False, False
    names = {program.name for program in programs.programs(tmp_path)}
    assert names == {"web", "worker-default", "worker-gpu", "beat", "ledger_writer"}


def test_a_process_whose_parent_died_first_does_not_start(monkeypatch):
    monkeypatch.setenv(child.PARENT, "1")
    command = child.wrap(signal.SIGTERM, [sys.executable, "-c", "print('started')"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")
