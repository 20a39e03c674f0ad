"""What supervision promises: every line is heard and logged, and no child outlives its claim."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from training import processes

pytestmark = pytest.mark.processes


class Steps:
    """A claim that counts its heartbeats and refuses from a given one on."""

    def __init__(self, refuse_after: int = 1_000, error: type[Exception] = RuntimeError) -> None:
        self.beats, self.refuse_after, self.error = 0, refuse_after, error

    def step(self) -> None:
        self.beats += 1
        if self.beats > self.refuse_after:
            raise self.error


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def gone(pid: int) -> bool:
    """Whether no such process runs (a zombie nobody reaped runs no more)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return gone(pid)


def test_every_line_is_heard_and_logged_and_the_exit_code_returned(tmp_path):
    heard: list[str] = []
    code = processes.supervise(
        python("import sys; print('bir'); print('iki', file=sys.stderr); print('üç', end=''); sys.exit(3)"),
        Steps(), tmp_path, heard.append,
    )  # fmt: skip
    assert code == 3
    assert sorted(heard) == ["bir", "iki", "üç"]
    assert processes.log_tail(tmp_path) == heard


def test_the_log_tail_keeps_the_last_lines(tmp_path):
    processes.supervise(python("for n in range(100): print(n)"), Steps(), tmp_path)
    assert processes.log_tail(tmp_path) == [str(n) for n in range(80, 100)]
    assert processes.log_tail(tmp_path / "nothing") == []


def test_the_child_runs_offline_with_one_thread(tmp_path):
    heard: list[str] = []
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['HF_HUB_OFFLINE'], os.getpgid(0) == os.getpid())"
    processes.supervise(python(code), Steps(), tmp_path, heard.append)
    assert heard == ["1 1 True"]


def test_a_claim_that_stops_kills_the_whole_group(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "BEAT", 0.2)
    pids: list[int] = []
    code = """
        import os, subprocess, sys, time
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(os.getpid()); print(grandchild.pid, flush=True)
        time.sleep(60)
    """
    with pytest.raises(PermissionError):
        processes.supervise(python(code), Steps(4, PermissionError), tmp_path, lambda line: pids.append(int(line)))
    assert len(pids) == 2
    assert all(wait_gone(pid) for pid in pids)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "BEAT", 0.2)
    monkeypatch.setattr(processes, "GRACE", 0.5)
    pids: list[int] = []
    code = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        time.sleep(60)
    """
    with pytest.raises(RuntimeError):
        processes.supervise(python(code), Steps(3), tmp_path, lambda line: pids.append(int(line)))
    assert wait_gone(pids[0])


def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_job(tmp_path):
    pids: list[int] = []
    code = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
    """
    began = time.monotonic()
    assert processes.supervise(python(code), Steps(), tmp_path, lambda line: pids.append(int(line))) == 0
    assert time.monotonic() - began < 10
    assert wait_gone(pids[0])


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_a_child_dies_with_a_worker_that_was_killed(tmp_path):
    worker = f"""
        import os
        from pathlib import Path
        os.environ["DJANGO_SETTINGS_MODULE"] = "paramstack_site.settings.test"
        from training import processes
        class Claim:
            def step(self): pass
        child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        processes.supervise([{sys.executable!r}, "-c", child], Claim(), Path({str(tmp_path)!r}),
                            lambda line: print(line, flush=True))
    """
    parent = subprocess.Popen(python(worker), stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_gone(pid)
