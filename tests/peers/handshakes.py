"""Upstream's Python thin client, connected anew many times while its daemon sends events: handshakes.py CONFIG..."""

import asyncio
import os
import sys

from katzenpost_thinclient import Config, ThinClient


async def handshake(config: str) -> None:
    client = ThinClient(Config(config))
    await client.start(asyncio.get_running_loop())
    seed = os.urandom(32)
    assert await client.new_keypair(seed) == await client.new_keypair(seed)
    client.stop()


async def main() -> None:
    for _ in range(20):
        await asyncio.gather(*(handshake(config) for config in sys.argv[1:]))


asyncio.run(asyncio.wait_for(main(), 120))
