"""Upstream's Python thin client against a localnet: a new keypair, two boxes written, the same two read."""

import asyncio
import os
import sys

from katzenpost_thinclient import Config, ThinClient


async def main(config_path: str) -> None:
    client = ThinClient(Config(config_path))
    await client.start(asyncio.get_running_loop())
    pair = await client.new_keypair(os.urandom(32))
    boxes = [b"first box", os.urandom(client.pigeonhole_geometry.max_plaintext_payload_length)]

    index = pair.first_message_index
    for plaintext in boxes:
        sealed = await client.encrypt_write(plaintext, pair.write_cap, index)
        await client.start_resending_encrypted_message(
            read_cap=None,
            write_cap=pair.write_cap,
            message_box_index=None,
            reply_index=None,
            envelope_descriptor=sealed.envelope_descriptor,
            message_ciphertext=sealed.message_ciphertext,
            envelope_hash=sealed.envelope_hash,
        )
        following = await client.next_message_box_index(index)
        assert following == sealed.next_message_box_index, "the next index, asked for and told"
        index = following

    index = pair.first_message_index
    for plaintext in boxes:
        asked = await client.encrypt_read(pair.read_cap, index)
        reply = await client.start_resending_encrypted_message(
            read_cap=pair.read_cap,
            write_cap=None,
            message_box_index=index,
            reply_index=0,
            envelope_descriptor=asked.envelope_descriptor,
            message_ciphertext=asked.message_ciphertext,
            envelope_hash=asked.envelope_hash,
        )
        assert reply.plaintext == plaintext, "other bytes came back"
        index = await client.next_message_box_index(index)
    client.stop()
    print("two boxes written and read")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 120))
