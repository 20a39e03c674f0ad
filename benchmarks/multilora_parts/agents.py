"""The product's agents beside the bench's engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.ledger_parts.stand import Stand, until
from inference.engines.client import Engine

PATIENCE = 120.0  # seconds that an adapter may take to answer, or to go


@contextmanager
def beside(ground: Stand, name: str, engine: Engine) -> Iterator[None]:
    """`manage.py engine_agent` for the replica `name`; it ends with the block."""
    argv = ["manage.py", "engine_agent", "--name", name, "--url", engine.url, "--key-file", str(engine.key_file)]
    process = ground.process(f"agent-{name}", *argv)
    process.start()
    try:
        yield
    finally:
        process.end(patience=10)


def answering(adapters: list[Any], replicas: int) -> None:
    """Waits until each adapter answers on so many replicas; ends the bench where one cannot."""
    from inference.models import Residence

    def done() -> bool:
        failed = Residence.objects.filter(adapter__in=adapters, state=Residence.State.FAILED).first()
        if failed:
            raise SystemExit(f"{failed.adapter} is not served by {failed.replica} ({failed.why}): {failed.note}")
        living = Residence.objects.filter(adapter__in=adapters, state=Residence.State.ELIGIBLE)
        return living.count() == replicas * len(adapters)

    until(done, "An adapter does not come to answer", PATIENCE)


def gone(adapter: Any) -> None:
    """Waits until no replica has it any more."""
    until(lambda: not adapter.residences.exists(), f"{adapter} does not go", PATIENCE)
