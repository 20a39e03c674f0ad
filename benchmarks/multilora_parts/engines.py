"""vLLM on this machine for a part of the bench, started by the product's own command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ledger_parts.stand import Stand, free_port, until
from inference.engines.client import Engine, EngineError

PATIENCE = 300.0  # seconds for a start
ASK = 120.0  # seconds for an answer


@contextmanager
def running(
    ground: Stand, name: str, model: Path, *options: str, port: int = 0, key_file: str = "", **env: str
) -> Iterator[Engine]:
    """An engine with a GiB of cache that is well; it ends with the block."""
    port = port or free_port()
    key = Path(key_file or ground.directory / f"{name}.key")
    argv = ["manage.py", "launch_vllm", "--port", str(port), "--model", str(model), "--memory", "1", *options]
    process = ground.process(name, *argv, ENGINE_KEY_FILE=str(key), **env)
    engine = Engine(f"http://127.0.0.1:{port}", ASK, key)
    process.start()
    try:
        until(lambda: is_well(engine) or not process.alive, f"{name} does not become well", PATIENCE, process.log)
        if not process.alive:
            raise SystemExit(f"{name} ended:\n" + "\n".join(process.log.read_text().splitlines()[-20:]))
        yield engine
    finally:
        process.end(patience=30)


def is_well(engine: Engine) -> bool:
    try:
        engine.health()
    except EngineError:
        return False
    return True
