"""Boxes written and read by upstream's client and by ours, on one network, one after the other: boxes.py BOXES.

The program is the same for both, but for what it imports. `one by one` waits for each call; `eight at once` has eight channels
under way."""

import asyncio
import importlib
import logging
import os
import resource
import sys
import time

from pigeonfs.testing import Localnet


def started(client, envelope, read_cap, write_cap, index, **flags):
    return client.start_resending_encrypted_message(
        read_cap, write_cap, index, 0, envelope.envelope_descriptor, envelope.message_ciphertext,
        bytes(envelope.envelope_hash), **flags,
    )  # fmt: skip


async def channel(client, boxes, content):
    """Writes boxes to a channel of its own, and reads them; the seconds that each took."""
    pair = await client.new_keypair(os.urandom(32))
    began = time.perf_counter()
    index = pair.first_message_index
    for _ in range(boxes):
        sealed = await client.encrypt_write(content, pair.write_cap, index)
        await started(client, sealed, None, pair.write_cap, None)
        index = sealed.next_message_box_index
    written = time.perf_counter()
    index = pair.first_message_index
    for _ in range(boxes):
        asked = await client.encrypt_read(pair.read_cap, index)
        box = await started(client, asked, pair.read_cap, None, index, no_retry_on_box_id_not_found=True)
        assert box.plaintext == content
        index = asked.next_message_box_index
    return written - began, time.perf_counter() - written


def processor():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(package, config, boxes, at_once):
    client = package.ThinClient(package.Config(config))
    await client.start(asyncio.get_running_loop())
    content = os.urandom(client.pigeonhole_geometry.max_plaintext_payload_length)
    await channel(client, 10, content)
    before, began = processor(), time.perf_counter()
    await asyncio.gather(*(channel(client, boxes // at_once, content) for _ in range(at_once)))
    took = time.perf_counter() - began, processor() - before
    client.stop()
    return took


def main(boxes):
    logging.disable(logging.CRITICAL)
    print(f"{boxes:,} boxes written and read; seconds, and the client's own processor time")
    with Localnet("--profile", "instant", "--quiet") as network:
        for at_once in (1, 8):
            told = {}
            for name in ("katzenpost_thinclient", "pigeonfs.compat"):
                package = importlib.import_module(name)
                told[name] = asyncio.run(measure(package, network.config, boxes, at_once))
                whole, own = told[name]
                how = "one by one" if at_once == 1 else "eight at once"
                print(f"{how:14} {name:24} {whole:7.2f} s {own:7.2f} s", flush=True)
            theirs, ours = told.values()
            print(f"{'':14} {'times as fast':24} {theirs[0] / ours[0]:7.1f}   {theirs[1] / ours[1]:7.1f}")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
