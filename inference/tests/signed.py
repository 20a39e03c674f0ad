"""Adapters' files for tests that need no model: whole, of the right shape, with known answers."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from inference.engines import known
from inference.models import Adapter, Replica, Residence

CASES = (
    known.Case((5, 6), (7, 8, 9), (-0.1, -0.2, -0.3), (-2.0, -3.0, -1.5), (3.0, 2.0, 1.0)),
    known.Case((5,), (11, 12), (-0.5, -0.4), (-0.9, -1.4), (0.5, 0.05)),
)


def write_adapter(path: Path, base: str, rank: int = 8) -> Path:
    """An adapter of `base` in the directory `path`, different each time."""
    path.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank}
    (path / "adapter_config.json").write_text(json.dumps(config))
    (path / "adapter_model.safetensors").write_bytes(secrets.token_bytes(64))
    (path / known.NAME).write_bytes(known.dump(known.Known(base, "", CASES)))
    return path


def answering(adapter: Adapter) -> Adapter:
    """`adapter` as it is once an agent has loaded it, on the replica `engine`."""
    Adapter.objects.filter(pk=adapter.pk).update(state=Adapter.State.LOADED)
    adapter.refresh_from_db()
    replica, _ = Replica.objects.get_or_create(name="engine", defaults={"url": "http://127.0.0.1:1"})
    Replica.objects.filter(pk=replica.pk, base=None).update(base=adapter.base, state=Replica.State.WELL)
    facts = {"state": Residence.State.ELIGIBLE, "load_epoch": 1, "start": replica.start}
    Residence.objects.update_or_create(replica=replica, adapter=adapter, defaults=facts)
    return adapter
