"""A channel, box by box."""

import os


async def pair(client):
    return await client.new_keypair(os.urandom(32))


def start(client, envelope, read_cap=None, write_cap=None, index=None, **flags):
    return client.start_resending_encrypted_message(
        read_cap, write_cap, index, None, envelope.envelope_descriptor, envelope.message_ciphertext,
        envelope.envelope_hash, **flags,
    )  # fmt: skip


async def write(client, plaintext, cap, index, **flags):
    envelope = await client.encrypt_write(plaintext, cap, index)
    await start(client, envelope, write_cap=cap, **flags)
    return envelope.next_message_box_index


async def read(client, cap, index, **flags):
    envelope = await client.encrypt_read(cap, index)
    return (
        await start(client, envelope, read_cap=cap, index=index, **flags)
    ).plaintext, envelope.next_message_box_index
