"""`make bench NAME=multilora`: many tenants' adapters on one engine, for real: vLLM on this machine's CPU.

Parts: five tenants with five adapters through the gateway, alone and 16 at a time; two replicas under traffic while
adapters come and go; n-gram speculation and an fp8 cache, each against the same engine without. Needs `make vllm`; the
model is tiny and has random weights, so equality and ratios say something and tokens a second do not.

Each part is kept in `var/bench/multilora-parts/`: a run that was cut goes on where it was. ARGS="--fresh" measures
everything again, ARGS="--part swaps" one part.

BENCH_QUICK=1 takes the first part alone: starting vLLM takes half a minute, so CI, which has the same equality among
the tests of its group `vllm`, does not run even that.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.ledger_parts.stand import Database, Stand, stand

PARTS = ("tenants", "swaps", "speed")
NAMES = ("a0", "a1", "a2", "a3", "a4")
SWAPS, ROUNDS = 200, 4
KEPT = harness.ROOT / "var" / "bench" / "multilora-parts"
# What was claimed before anything was measured, and the target where there is one.
CLAIMS = {
    "multilora_equal": ("five tenants at once, each as alone", "1"),
    "wrong_adapter": ("200 hot loads on two replicas", "0"),
    "failed": ("the same", "0"),
    "ngram_speedup": ("2-3x", ""),
    "fp8_kv_ratio": ("50 % of the memory: 2x the tokens", ""),
    "throughput_tokens_s": ("", ""),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench NAME=multilora", description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    told = parser.parse_args(argv)
    if not (harness.ROOT / ".venv-vllm" / "bin" / "python").exists():
        raise SystemExit("vLLM is not installed. Run `make vllm` first.")
    asked = [told.part] if told.part else list(PARTS[:1] if harness.QUICK else PARTS)
    found = {} if told.fresh or harness.QUICK else kept()
    wanted = [part for part in asked if part == told.part or part not in found]
    with tempfile.TemporaryDirectory(prefix="paramstack-multilora-") as directory:
        database = Database()
        database.migrate(Path(directory))
        try:
            if wanted:
                with stand("multilora", database) as ground:
                    measure(ground, wanted, found)
        finally:
            database.close()
    figures = {name: value for values in found.values() for name, value in values.items() if name in CLAIMS}
    table(figures)
    harness.report("multilora", figures, parts=found)


def kept() -> dict[str, Any]:
    """What earlier runs measured, by part."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))}


def keep(part: str, values: dict[str, Any], found: dict[str, Any]) -> None:
    found[part] = values | {"commit": harness.commit()}
    if not harness.QUICK:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{part}.json").write_text(json.dumps(found[part], indent=1))


def measure(ground: Stand, wanted: list[str], found: dict[str, Any]) -> None:
    """Each part's values into `found`."""
    import django

    django.setup()
    from urllib.parse import urlsplit

    from benchmarks.multilora_parts import engines, speed, swaps, tenants
    from inference.tests import tiny

    base, paths = tiny.make_all(ground.directory / "models", NAMES)
    if "tenants" in wanted:
        writer = ground.writer()
        port = urlsplit(ground.env["ENGINE_URL"]).port or 0
        options = ("--tenants", str(len(NAMES)), "--max-lora-rank", str(tiny.RANK))
        key_file = str(ground.directory / "engine.key")
        with engines.running(ground, "engine", base, *options, port=port, key_file=key_file) as engine:
            rounds = 1 if harness.QUICK else ROUNDS
            keep("tenants", tenants.measure(ground, base, paths, engine, rounds), found)
        writer.end()
    if "swaps" in wanted:
        writer = ground.writer()
        alone = tiny.Alone(base, paths)
        keep("swaps", swaps.measure(ground, base, paths, alone, 20 if harness.QUICK else SWAPS), found)
        writer.end()
    if "speed" in wanted:
        keep("speed", speed.measure(ground, base), found)


def table(figures: dict[str, Any]) -> None:
    print(f"\n{'figure':22} {'measured':>12}  {'target':8} claimed beforehand")
    for name, value in figures.items():
        claim, target = CLAIMS[name]
        print(f"{name:22} {value:>12}  {target:8} {claim}")


if __name__ == "__main__":
    main()
