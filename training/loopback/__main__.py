"""`python -m training.loopback --port 8900 --latency-ms 300 --calls-per-second 50`: the server as a process."""

from __future__ import annotations

import asyncio
import socket
import sys

from training.loopback.options import parse
from training.loopback.server import Loopback, environment, server


def main(words: list[str]) -> None:
    told, options = parse(words)
    listener = socket.create_server((told.host, told.port), backlog=4_096)
    address = f"http://{told.host}:{listener.getsockname()[1]}"
    for name, value in environment(address).items():
        print(f"{name}={value}", flush=True)
    asyncio.run(server(Loopback(options)).serve(sockets=[listener]))


if __name__ == "__main__":
    main(sys.argv[1:])
