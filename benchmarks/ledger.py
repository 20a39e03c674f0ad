"""`make bench NAME=ledger`: does the ledger hold when callers race, processes die and Redis loses what it knew?

Parts run one after the other, each in its own process with its own Redis and database, and each keeps its result in
`var/bench/ledger-parts/`: a run that was cut goes on where it was. ARGS="--fresh" measures everything again,
ARGS="--part race" one part. BENCH_QUICK=1 takes small numbers.
"""

from __future__ import annotations

from benchmarks import harness
from benchmarks.ledger_parts.stand import Database
from benchmarks.suite import Suite

HOME = "benchmarks.ledger_parts"
SUITE = Suite(
    name="ledger",
    about=__doc__,
    parts={
        "race": f"{HOME}.race",
        "events": f"{HOME}.events",
        "copy": f"{HOME}.copying",
        "pages": f"{HOME}.pages",
        "revocation": f"{HOME}.revocation",
        "cost": f"{HOME}.admit_cost",
    },
    targets={
        "overspend_nanodollars": "<= 0",
        "limit_overshoot": "<= 0",
        "lost": "<= 0",
        "doubled": "<= 0",
        "misstated": "<= 0",
        "copy_ratio": "<= 12",
        "event_tx_ratio": "",
        "page_growth": "<= 1.5",
        "page_queries": "<= 12",
        "prove_s": "",
        "revocation_p99_ms": "<= 1000",
        "admit_cpu_us": "",
        "redis_us": "",
    },
)


def main(argv: list[str] | None = None) -> None:
    wanted = SUITE.arguments(argv)
    database = Database()
    if not database.postgres:
        if not harness.QUICK:
            raise SystemExit("The full run compares with PostgreSQL's COPY. Set DATABASE_URL to a PostgreSQL server.")
        print("No PostgreSQL answers at DATABASE_URL: SQLite instead, and copy_ratio is not measured.", flush=True)
    SUITE.run(wanted, database, leave_out=frozenset() if database.postgres else frozenset({"copy"}))


if __name__ == "__main__":
    main()
