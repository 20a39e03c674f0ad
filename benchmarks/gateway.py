"""`make bench NAME=gateway`: what does the gateway cost beside LiteLLM's proxy and nginx, and is its ledger right?

speed    CPU of a call, calls a second, time to the first chunk: all servers in turn in front of the same upstream, 16
         connections, one worker each. Ours with limits on key and tenant, a budget, usage events and its ledger writer,
         LiteLLM's with limits counted in Redis, nginx forwarding only.
streams  memory and the longest stall of the loop with 2,000 open streams.
ledger   24,000 calls with clients that leave, engines that fail, kill -9 and Redis gone: does each have its row?

What a policy of twelve validators adds (guarded_cpu_ratio_json) comes with the validators. Each part is kept in
`var/bench/gateway-parts/`: a run that was cut goes on where it was. ARGS="--fresh" measures everything again,
ARGS="--part speed" one part. BENCH_QUICK=1 takes small numbers. Needs gcc, nginx, and `make peers NAME=litellm`.
"""

from __future__ import annotations

from benchmarks.ledger_parts.stand import Database
from benchmarks.suite import Suite

HOME = "benchmarks.gateway_parts"
SUITE = Suite(
    name="gateway",
    about=__doc__,
    parts={"speed": f"{HOME}.speed", "streams": f"{HOME}.streaming", "ledger": f"{HOME}.agreement"},
    targets={
        "litellm_cpu_ratio_json": ">= 60",
        "litellm_cpu_ratio_sse": ">= 80",
        "redis_us": "",
        "total_cpu_ratio_json": ">= 40",
        "nginx_cpu_ratio": "<= 15",
        "litellm_rps_ratio": ">= 60",
        "ttfc_ratio": ">= 8",
        "stream_kb": "<= 60",
        "loop_stall_ms": "<= 50",
        "ledger_mismatch": "<= 0",
    },
)


def main(argv: list[str] | None = None) -> None:
    wanted = SUITE.arguments(argv)
    database = Database()
    if not database.postgres:
        print("No PostgreSQL answers at DATABASE_URL: SQLite instead.", flush=True)
    SUITE.run(wanted, database)


if __name__ == "__main__":
    main()
