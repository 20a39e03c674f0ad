"""A gateway in a process of its own, to be killed. Arguments: KEY TENANT EPOCH REDIS ENGINE.

No Django; the snapshot is made here by hand. Its leases lapse after 300 ms. Prints its port.
"""

import asyncio
import socket
import sys

import uvicorn

from inference.guardrails import policy
from tenants import keytext, metering

metering.LEASE_MS = 300

from inference.gateway.app import Gateway  # noqa: E402  (reads LEASE_MS)
from inference.gateway.snapshot import Route, Snapshot, Target  # noqa: E402

KEY, TENANT, EPOCH, REDIS, ENGINE = sys.argv[1:]


def load(key_id: str) -> Snapshot:
    _, secret = keytext.parse(KEY)
    return Snapshot(
        key_id=key_id,
        key_salt="",
        key_digest=keytext.digest("", secret),
        key_expires_at=None,
        tenant=TENANT,
        limits=metering.Limits(int(EPOCH), 1000, 10**9),
        policy=policy.parse(policy.DEFAULT.read_text()),
        routes={"demo-base": Route("demo-base", Target("demo-base", "", 1_000_000, 4_000_000))},
        default_max_tokens=256,
        max_tokens=4096,
    )


async def main() -> None:
    gateway = Gateway(load, REDIS, ENGINE)
    await gateway.startup()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(gateway, lifespan="off", log_level="warning")).serve([listener])


asyncio.run(main())
