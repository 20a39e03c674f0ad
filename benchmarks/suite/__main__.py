"""`python -m benchmarks.suite MODULE TEMPLATE FILE`: one part of a benchmark, in this process."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import harness
from benchmarks.ledger_parts.stand import Database, NotThere, stand


def main(module: str, template: str, path: str) -> None:
    """The result as JSON in the file: figures, and the facts behind them."""
    commit, part = harness.commit(), Path(path).stem
    started = time.monotonic()
    with stand(part, Database(template)) as ground:
        import django

        django.setup()
        logging.disable(logging.ERROR)  # what the product logs of losses that are the point here
        try:
            figures, facts = importlib.import_module(module).measure(ground, harness.QUICK)
        except NotThere as missing:
            raise SystemExit(str(missing)) from missing
        finally:
            from django.db import connections

            connections.close_all()
    record = {"part": part, "commit": commit, "quick": harness.QUICK, "seconds": round(time.monotonic() - started, 1)}
    record |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "figures": figures, "facts": facts}
    Path(path).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
