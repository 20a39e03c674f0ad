"""A gateway in a process of its own, to be killed. Arguments: KEY TENANT EPOCH MARK REDIS ENGINE.

No Django; the snapshot is made here by hand. Its leases lapse after 300 ms. Prints its port.
"""

import socket
import sys

import uvicorn
import uvloop

from inference.gateway.app import Gateway
from inference.gateway.snapshot import NEVER, Host, Key, Route, Target, TenantSnapshot
from inference.guardrails import policy
from tenants import keytext, metering

metering.LEASE_MS, metering.RENEW_SECONDS = 300, 0.1
KEY, TENANT, EPOCH, MARK, REDIS, ENGINE = sys.argv[1:]


def load(key_id: str) -> TenantSnapshot:
    _, secret = keytext.parse(KEY)
    terms = metering.Terms(MARK, int(EPOCH), NEVER, "2026-11-25", 10**9)
    target = Target("demo-base", "", 1_000_000, 4_000_000, 1_000_000, hosts=(Host("engine", ENGINE),))
    return TenantSnapshot(
        tenant=TENANT,
        epoch=int(EPOCH),
        mark=MARK,
        sequence=0,
        policy=policy.parse(policy.DEFAULT.read_text()),
        routes={"demo-base": Route("demo-base", target)},
        keys={key_id: Key(key_id, "", keytext.digest("", secret), terms)},
    )


async def main() -> None:
    gateway = Gateway(load, REDIS, b"secret")
    await gateway.startup()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(gateway, lifespan="off", log_level="warning")).serve([listener])


uvloop.run(main())
