"""Prints how many tests each group ran: `counts.py GROUP...` reads var/tests/<group>.xml."""

import sys
from pathlib import Path
from xml.etree import ElementTree


def line(group: str) -> str:
    path = Path("var/tests") / f"{group}.xml"
    if not path.exists():
        return f"{group:<10} did not run"
    suite = next(ElementTree.parse(path).iter("testsuite"))  # noqa: S314  (pytest wrote it a moment ago)
    total, failed, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    seconds = float(suite.get("time", 0))
    return f"{group:<10} {total:>4} tests, {failed + errors} failed, {skipped} skipped, {seconds:.0f} s"


if __name__ == "__main__":
    print("\n".join(["", *map(line, sys.argv[1:])]))
