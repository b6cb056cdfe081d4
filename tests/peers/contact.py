"""One side of a first contact by upstream's Python thin client: contact.py CONFIG join|induct.

`join` invites: it prints a code, and waits. `induct` reads one from stdin. Both then write a greeting, and print the other
side's."""

import asyncio
import base64
import os
import sys

import cbor2
from katzenpost_thinclient import BoxIDNotFoundError, Config, ThinClient

INDEX = 104


class Side:
    def __init__(self, config: str) -> None:
        self.client = ThinClient(Config(config))

    async def write(self, plaintext: bytes, cap: bytes, index: bytes) -> bytes:
        sealed = await self.client.encrypt_write(plaintext, cap, index)
        await self.start(sealed, None, cap, None)
        return sealed.next_message_box_index

    async def read(self, cap: bytes, index: bytes) -> bytes:
        """Asks anew until the box is there: a courier keeps what it has answered."""
        while True:
            asked = await self.client.encrypt_read(cap, index)
            try:
                return (await self.start(asked, cap, None, index, no_retry_on_box_id_not_found=True)).plaintext
            except BoxIDNotFoundError:
                await asyncio.sleep(0.1)

    def start(self, envelope, read_cap, write_cap, index, **flags):
        return self.client.start_resending_encrypted_message(
            read_cap, write_cap, index, 0, envelope.envelope_descriptor, envelope.message_ciphertext,
            bytes(envelope.envelope_hash), **flags,
        )  # fmt: skip

    async def next(self, cap: bytes) -> bytes:
        return (await self.client.encrypt_read(cap, cap[-INDEX:])).next_message_box_index

    async def join(self) -> None:
        ours = await self.client.new_keypair(os.urandom(32))
        minted = await self.client.voucher_mint(ours.write_cap, "Upstream")
        cap = minted.voucher_read_cap
        second = await self.write(minted.voucher_payload, minted.voucher_write_cap, cap[-INDEX:])
        print(base64.b64encode(minted.voucher).decode(), flush=True)
        sealed = await self.read(cap, second)
        opened = await self.client.voucher_open(minted.voucher_secret_key, sealed, ours.write_cap)
        mutated = opened.mutated_message_write_cap
        await self.write(b"greetings from upstream", mutated, mutated[-INDEX:])
        who = cbor2.loads(opened.who_reply)
        assert (who["v"], who["kind"], who["name"]) == (1, "stream", "mine"), who
        print((await self.read(who["cap"], who["cap"][-INDEX:])).decode(), flush=True)

    async def induct(self, code: str) -> None:
        voucher = base64.b64decode(code)
        stream = await self.client.voucher_derive_stream(voucher)
        cap = stream.voucher_read_cap
        payload = await self.read(cap, cap[-INDEX:])
        ours = await self.client.new_keypair(os.urandom(32))
        inducted = await self.client.voucher_induct(voucher, payload, ours.read_cap)
        await self.write(inducted.sealed_reply, stream.voucher_write_cap, await self.next(cap))
        await self.write(b"greetings from upstream", ours.write_cap, ours.write_cap[-INDEX:])
        theirs = inducted.mutated_message_read_cap
        print(inducted.display_name, (await self.read(theirs, theirs[-INDEX:])).decode(), flush=True)


async def main(config: str, role: str) -> None:
    side = Side(config)
    await side.client.start(asyncio.get_running_loop())
    await (side.join() if role == "join" else side.induct(sys.stdin.read().strip()))
    side.client.stop()


asyncio.run(main(*sys.argv[1:]))
