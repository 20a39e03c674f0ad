"""The key of an engine, the lock it opens, and the keeper that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from inference import serving
from inference.engines import keeper, key, vllm
from inference.engines.lock import Lock
from inference.management.commands import launch_vllm

LEAVES_A_CHILD = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"


def test_a_key_is_new_at_each_start_and_its_owner_s_alone(tmp_path: Path):
    path = tmp_path / "deep" / "engine.key"
    assert key.read(path) == ""
    first = key.renew(path)
    assert (key.read(path), path.stat().st_mode & 0o777) == (first, 0o600)
    os.chmod(path, 0o644)
    second = key.renew(path)
    assert second != first
    assert (key.read(path), path.stat().st_mode & 0o777) == (second, 0o600)
    assert [one.name for one in path.parent.iterdir()] == ["engine.key"]


async def asked(lock: Lock, **scope: Any) -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await lock(scope, lambda: None, send)  # type: ignore[arg-type,return-value]
    return int(sent[0].get("status") or sent[0]["code"])


async def opened(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


async def test_the_lock_opens_for_the_key_and_on_health_alone(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    lock = Lock(opened)
    right, wrong = (b"authorization", b"Bearer secret"), (b"authorization", b"Bearer secre")
    assert await asked(lock, type="http", path="/adapters", headers=[right]) == 200
    assert await asked(lock, type="http", path="/adapters", headers=[wrong]) == 401
    assert await asked(lock, type="http", path="/adapters", headers=[]) == 401
    assert await asked(lock, type="http", path="/health", headers=[]) == 200
    assert await asked(lock, type="http", path="/health/../adapters", headers=[]) == 401
    assert await asked(lock, type="websocket", path="/health", headers=[]) == 1008
    assert await asked(lock, type="lifespan") == 200


async def test_a_lock_without_a_key_stays_shut(monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    lock = Lock(opened)
    assert await asked(lock, type="http", path="/v1/models", headers=[(b"authorization", b"Bearer ")]) == 401


def keep(script: str) -> tuple[subprocess.Popen, int]:
    """The keeper of a Python script, and the number that the script prints first."""
    argv = [sys.executable, "-I", "-S", keeper.__file__, sys.executable, "-c", script]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, int(process.stdout.readline())


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_dies_takes_its_processes_along(number: int):
    process, child = keep("import os; print(os.getpid(), flush=True);" + LEAVES_A_CHILD)
    assert process.stdout
    grandchild = int(process.stdout.readline())
    os.kill(child, number)
    assert process.wait(10) == 128 + number
    assert is_gone(grandchild)


def test_a_keeper_that_is_told_to_stop_tells_the_server(tmp_path: Path):
    process, child = keep("import os; print(os.getpid(), flush=True);" + LEAVES_A_CHILD)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert is_gone(child)


def test_a_server_hears_of_its_keeper_s_death():
    script = "import os, signal, time; signal.signal(15, lambda *_: os._exit(0)); print(os.getpid(), flush=True);"
    process, child = keep(script + "time.sleep(60)")
    process.kill()
    process.wait(10)
    assert is_gone(child)


def test_show_says_the_command_and_starts_nothing(capsys, settings, tmp_path: Path, db):
    settings.ENGINE_KEY_FILE = tmp_path / "engine.key"
    call_command("launch_vllm", "--show", "--model", "org/model", "--speculation", "ngram")
    shown = capsys.readouterr().out
    assert "vllm.entrypoints.openai.api_server --model org/model" in shown
    assert "--speculative-config" in shown
    assert not settings.ENGINE_KEY_FILE.exists()


def test_a_wish_that_cannot_be_and_a_missing_vllm_say_what_to_do(settings, tmp_path: Path, db):
    settings.ENGINE_KEY_FILE, settings.ENGINE_PYTHON = tmp_path / "engine.key", tmp_path / "python"
    with pytest.raises(CommandError, match="its callers come through the gateway"):
        call_command("launch_vllm", "--model", "org/model", "--host", "0.0.0.0")
    with pytest.raises(CommandError, match="Run `make vllm` first"):
        call_command("launch_vllm", "--model", "org/model")
    assert not settings.ENGINE_KEY_FILE.exists()


def test_the_ranks_of_what_is_loaded_are_looked_up(publish, cast):
    adapter = publish()
    assert launch_vllm.ranks() == ()
    adapter.state = "loaded"
    adapter.save()
    assert launch_vllm.ranks() == (8,)


def test_vllm_gets_none_of_our_secrets(monkeypatch):
    for name in ("SECRET_KEY", "MASTER_KEY", "DATABASE_URL", "ANTHROPIC_API_KEY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "x")
    env = launch_vllm.environment(vllm.Launch([], {"VLLM_NO_USAGE_STATS": "1"}), "key")
    assert {name for name, value in env.items() if value == "x"} == {"CUDA_VISIBLE_DEVICES"}
    assert (env["VLLM_API_KEY"], env["VLLM_NO_USAGE_STATS"]) == ("key", "1")


class TestRotation:
    """The gateway and the console with an engine that has been started again, under another key."""

    @pytest.fixture
    def started(self, serving, engine, settings, tmp_path):
        def start() -> None:
            engine.secret = key.renew(settings.ENGINE_KEY_FILE)

        settings.ENGINE_KEY_FILE = tmp_path / "engine.key"
        serving.agent = None  # another one, which reads that file
        start()
        return start

    def test_the_console_reads_the_key_before_each_call(self, started):
        one = serving.engine()
        assert one.models() == ["demo-base"]
        started()
        assert one.models() == ["demo-base"]

    def test_once_the_agent_has_looked_no_call_is_lost(self, serving, started, key):
        serving.look()
        assert serving.post(key).status_code == 200
        started()
        serving.look()
        assert serving.post(key).status_code == 200

    def test_a_call_before_that_is_lost_and_costs_nothing(self, serving, started, key):
        serving.look()
        assert serving.post(key).status_code == 200
        started()
        lost = serving.post(key)
        assert (lost.status_code, lost.json()["error"]["code"]) == (503, "engine_unavailable")
        serving.look()
        assert serving.post(key).status_code == 200
        assert [(row.status, row.cost_nano > 0) for row in serving.rows()] == [
            ("settled", True),
            ("aborted", False),
            ("settled", True),
        ]

    def test_an_engine_that_takes_no_key_at_all_costs_one_reading_a_second(self, serving, started, key, engine):
        engine.secret = "another installation's"
        snapshots, read = serving.gateway._snapshots, []
        load = snapshots._load

        def counted(key_id):
            read.append(key_id)
            return load(key_id)

        snapshots._load = counted
        began = time.monotonic()
        assert [serving.post(key).status_code for _ in range(6)] == [503] * 6
        assert 2 <= len(read) <= 2 + (time.monotonic() - began)  # to begin with, and for the doubt
