"""vLLM itself, on the CPU, started by `manage.py launch_vllm`; and the gateway of `serving` in front of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured

from attestation import statements
from inference import registry
from inference.engines import key
from inference.engines.client import Engine, EngineError
from inference.models import Adapter
from inference.tests.tiny import CONTEXT, RANK, Alone, make_all
from tenants import keys
from tenants.models import Budget, Quota, Tenant

NAMES = ("a0", "a1", "a2", "a3", "a4")
PATIENCE = 280  # seconds for a start beside other work


@dataclass(frozen=True)
class Running:
    """vLLM at `url` with `base` and the adapters in `paths` loaded by their names; `alone` answers without it."""

    url: str
    key_file: Path
    log: Path
    process: subprocess.Popen
    base: Path
    paths: dict[str, Path]
    alone: Alone

    @property
    def engine(self) -> Engine:
        return Engine(self.url, key_file=self.key_file)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(var: Path, port: int, *options: str) -> tuple[subprocess.Popen, Path]:
    """`manage.py launch_vllm` on an installation with nothing in it, and where its output goes."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    env = kept | {"PARAMSTACK_VAR": str(var), "DJANGO_SETTINGS_MODULE": "paramstack_site.settings.test"}
    argv = [sys.executable, "manage.py", "launch_vllm", "--port", str(port), *options]
    log = var / "vllm.log"
    with log.open("w") as output:
        process = subprocess.Popen(argv, cwd=configured.ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
    return process, log


def wait_until_well(engine: Engine, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            engine.health()
        except EngineError:
            time.sleep(0.3)
        else:
            return
    raise AssertionError("vLLM did not become well:\n" + "\n".join(log.read_text().splitlines()[-40:]))


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    var = tmp_path_factory.mktemp("vllm")
    base, paths = make_all(var / "models", NAMES)
    port = free_port()
    wishes = ["--model", str(base), "--memory", "1", "--max-lora-rank", str(RANK), "--tool-call-parser", "hermes"]
    process, log = launch(var, port, *wishes)
    try:
        alone = Alone(base, paths)  # meanwhile
        running = Running(f"http://127.0.0.1:{port}", var / "engine.key", log, process, base, paths, alone)
        wait_until_well(running.engine, process, log)
        for name, path in paths.items():
            running.engine.load(name, path)
        yield running
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True)
class Front:
    """The gateway before vLLM: Acme's key, and what is loaded for it."""

    serving: Any
    key: str
    adapter: Adapter

    @property
    def url(self) -> str:
        return str(self.serving.url)


@pytest.fixture
def front(serving: Any, vllm: Running, cast: Any, settings: Any) -> Front:
    """`serving` with vLLM as its engine, and Acme's adapter `destek-v1` (the files of a0) verified and loaded."""
    settings.ENGINE_URL, settings.ENGINE_KEY_FILE = vllm.url, vllm.key_file
    registry.enter_base("demo-base", str(vllm.base), context_tokens=CONTEXT)
    serving.agent = None  # vLLM's
    adapter = registry.load(publish(cast.acme, "destek", vllm.paths["a0"]))
    serving.look()
    open_up(cast.acme)
    return Front(serving, keys.create(cast.acme, "vllm", cast.owner)[1], adapter)


def publish(tenant: Tenant, name: str, path: Path) -> Adapter:
    statement = statements.sign_directory(str(tenant.pk), statements.ADAPTER, f"{tenant.slug}/{name}", path, {})
    return registry.register(tenant, name, registry.base_model("demo-base"), path, statement, {})


def open_up(tenant: Tenant) -> None:
    """Limits that no test of an engine meets."""
    Quota.objects.filter(tenant=tenant).update(requests_per_minute=100_000)
    Budget.objects.get_or_create(tenant=tenant, defaults={"monthly_nano": 100_000_000_000})


def secret_of(running: Running) -> str:
    return key.read(running.key_file)
