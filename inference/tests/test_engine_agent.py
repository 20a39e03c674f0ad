"""The command around the agent: one a place, one a name, and it ends when it is told to."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.management import call_command
from django.core.management.base import CommandError

from inference.models import Replica

pytestmark = pytest.mark.journey


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "x" * 61])
def test_a_name_that_is_none_is_refused(db, tmp_path, name):
    with pytest.raises(CommandError, match="--name"):
        call_command("engine_agent", name=name, cache=tmp_path)


def test_two_in_one_place_are_refused_and_two_of_one_name_too(serving, tmp_path):
    import fcntl

    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CommandError, match="a --cache of its own"):
            call_command("engine_agent", name="other", cache=tmp_path)
    Replica.objects.update(agent="elsewhere:1")
    with pytest.raises(CommandError, match="elsewhere:1 looks after engine"):
        call_command("engine_agent", name="engine", cache=tmp_path)


@pytest.mark.processes
def test_it_says_that_nobody_answers_and_ends_when_told(tmp_path):
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= {"PARAMSTACK_VAR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "paramstack_site.settings.dev"}
    env |= {"DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3", "ENGINE_URL": "http://127.0.0.1:1"}
    run: dict[str, Any] = {"cwd": configured.ROOT, "env": env, "stderr": subprocess.STDOUT}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True, **run)
    log = tmp_path / "agent.log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "manage.py", "engine_agent"], stdout=output, **run)
    deadline = time.monotonic() + 30
    while "does not answer" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "engine:" in log.read_text()
    assert "does not answer" in log.read_text()
