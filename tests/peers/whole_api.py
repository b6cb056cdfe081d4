"""Every public function of upstream's Python thin client against a localnet: whole_api.py CONFIG PIGEONFS DIRECTORY.

PIGEONFS is the program and DIRECTORY the localnet's, which is restarted and broken as it runs. One line a check."""

import asyncio
import contextlib
import os
import sys

import katzenpost_thinclient as upstream
from katzenpost_thinclient import Config, ConfigFile, ThinClient

PATIENCE = 60
INDEX = 104


class Watched(ThinClient):
    """A client whose frames can be looked at."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.frames = []

    async def handle_response(self, response) -> None:
        self.frames.append(response)
        await super().handle_response(response)

    def told(self, kind: str):
        return [frame[kind] for frame in self.frames if frame.get(kind) is not None]


def done(what: str) -> None:
    print("ok", what, flush=True)


@contextlib.contextmanager
def refused(kind: type, words: str = ""):
    try:
        yield
    except kind as error:
        assert words in str(error), f"{words!r} is not in {error!r}"
    else:
        raise AssertionError(f"no {kind.__name__} with {words!r}")


class Peer:
    def __init__(self, config: str, program: str, directory: str) -> None:
        self.config, self.program, self.directory = config, program, directory
        self.events = asyncio.Queue()
        self.client = None

    def started_by(self) -> Config:
        def put(kind):
            async def callback(event):
                await self.events.put((kind, event))

            return callback

        return Config(
            self.config,
            on_connection_status=put("status"),
            on_new_pki_document=put("document"),
            on_message_sent=put("sent"),
            on_message_reply=put("reply"),
            on_daemon_disconnected=put("disconnected"),
        )

    async def event(self, kind: str, wanted=lambda event: True):
        while True:
            came, event = await asyncio.wait_for(self.events.get(), PATIENCE)
            if came == kind and wanted(event):
                return event

    async def ctl(self, *words: str) -> None:
        command = [self.program, "localnet", "ctl", "--state", self.directory, *words]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0, words

    async def back(self, tokens: int) -> None:
        """Waits until the client has its session again: what is asked before then goes to the lost connection."""
        while len(self.client.told("session_token_reply")) == tokens:
            await asyncio.sleep(0.02)
        assert self.client.is_connected()

    async def ended(self, client: ThinClient) -> None:
        """Its worker watches the closed socket until it has run once more; a new socket may be of the same number."""
        await asyncio.wait([client.task])

    async def pair(self):
        return await self.client.new_keypair(os.urandom(32))

    async def write(self, plaintext: bytes, cap: bytes, index: bytes, **flags):
        sealed = await self.client.encrypt_write(plaintext, cap, index)
        return await self.started(sealed, None, cap, None, **flags), sealed.next_message_box_index

    async def read(self, cap: bytes, index: bytes, **flags):
        asked = await self.client.encrypt_read(cap, index)
        return await self.started(asked, cap, None, index, **flags), asked.next_message_box_index

    def started(self, envelope, read_cap, write_cap, index, **flags):
        return self.client.start_resending_encrypted_message(
            read_cap, write_cap, index, 0, envelope.envelope_descriptor, envelope.message_ciphertext,
            bytes(envelope.envelope_hash), **flags,
        )  # fmt: skip

    async def stream(self, elements, cap: bytes, index: bytes):
        """Writes the elements of a copy stream; the courier of the last one, and the index behind it."""
        assert elements, "a stream has an element"
        for element in elements:
            wrote, index = await self.write(element, cap, index)
        return wrote, index

    async def content(self, cap: bytes, index: bytes, length: int) -> bytes:
        content = b""
        while len(content) < length:
            box, index = await self.read(cap, index)
            content += box.plaintext
        return content

    async def run(self) -> None:
        await self.start()
        await self.directory_of_the_network()
        await self.legacy()
        await self.boxes()
        await self.cancels()
        await self.tombstones()
        await self.envelopes()
        await self.copies()
        await self.vouchers()
        await self.breaks()
        await self.resume()
        self.texts()

    async def start(self) -> None:
        assert ConfigFile.load(self.config).dial is not None
        self.client = Watched(self.started_by())
        await self.client.start(asyncio.get_running_loop())
        assert self.client.is_connected()
        assert (await self.event("status"))["is_connected"]
        assert (await self.event("document"))["payload"]
        (token,) = self.client.told("session_token_reply")
        assert not token["resumed"] and len(token["app_id"]) == 16
        done("config, start, events")
        geometry = self.client.pigeonhole_geometry
        geometry.validate()
        assert geometry.padded_payload_length() == geometry.max_plaintext_payload_length + 4
        assert geometry.max_plaintext_payload_length < self.client.geometry.UserForwardPayloadLength
        assert str(geometry) and str(self.client.geometry)
        done("geometries")

    async def directory_of_the_network(self) -> None:
        client = self.client
        document = client.pki_document()
        epoch = document["Epoch"]
        assert client.pki_document_for_epoch(epoch) == document == client.pki_document_for_epoch(epoch + 1000)
        raw, at = await client.get_pki_document_raw(0)
        assert at == epoch and len(raw) > 100
        assert (await client.get_pki_document_raw(epoch))[0] == raw
        with refused(Exception, "get_pki_document_raw failed"):
            await client.get_pki_document_raw(epoch + 1000)
        done("PKI document: current, by epoch, raw")
        authorities = await client.get_directory_authorities()
        assert authorities and all(
            authority["identifier"] and authority["addresses"] and len(authority["identity_key_hash"]) == 32
            for authority in authorities
        )
        done("directory authorities")
        couriers = client.get_services("courier")
        assert {courier.to_destination() for courier in upstream.find_services("courier", document)} == {
            courier.to_destination() for courier in couriers
        }
        assert client.get_service("echo").recipient_queue_id == b"+echo"
        assert client.get_service("testdest").recipient_queue_id == b"+testdest"
        with refused(Exception, "service not found"):
            client.get_service("nowhere")
        # It decodes the document's nodes where they stand, and prints nothing.
        printed = dict(document)
        client.pretty_print_pki_doc(printed)
        assert printed["ServiceNodes"][0]["Name"] and upstream.pretty_print_obj(document)
        done("services, printed document")

    async def legacy(self) -> None:
        client = self.client
        node, queue = client.get_service("testdest").to_destination()
        assert len(client.new_message_id()) == len(client.new_surb_id()) == len(client.new_query_id()) == 16
        answer = await client.blocking_send_message(b"blocking", node, queue, timeout_seconds=PATIENCE)
        assert answer.rstrip(b"\0") == b"blocking", answer
        surb_id = client.new_surb_id()
        await client.send_message(surb_id, "with a reply", node, queue)
        sent = await self.event("sent", lambda event: event["surbid"] == surb_id)
        assert not sent.get("err"), sent
        reply = await self.event("reply", lambda event: event["surbid"] == surb_id)
        assert reply["payload"].rstrip(b"\0") == b"with a reply"
        await client.send_message_without_reply(b"without", node, queue)
        unknown = client.new_surb_id()
        await client.send_message(unknown, b"nobody", bytes(32), b"nowhere")
        assert (await self.event("sent", lambda event: event["surbid"] == unknown))["err"]
        with refused(asyncio.TimeoutError):
            await client.blocking_send_message(b"nobody", bytes(32), b"nowhere", timeout_seconds=0.1)
        done("messages: with reply, without, blocking")

    async def boxes(self) -> None:
        client = self.client
        with refused(ValueError):
            await client.new_keypair(b"short")
        seed = os.urandom(32)
        pair, again = await client.new_keypair(seed), await client.new_keypair(seed)
        assert pair == again and len(pair.first_message_index) == INDEX
        first = pair.first_message_index
        second = await client.next_message_box_index(first)
        counter = await client.get_message_box_index_counter(first)
        assert await client.get_message_box_index_counter(second) == counter + 1
        done("key pair, next index, counter")

        largest = client.pigeonhole_geometry.max_plaintext_payload_length
        with refused(Exception, "encrypt_write failed"):
            await client.encrypt_write(bytes(largest + 1), pair.write_cap, first)
        with refused(upstream.BoxIDNotFoundError):
            await self.read(pair.read_cap, first, no_retry_on_box_id_not_found=True)
        waiting = asyncio.create_task(self.read(pair.read_cap, first))
        whole = os.urandom(largest)
        wrote, after = await self.write(whole, pair.write_cap, first, no_idempotent_box_already_exists=True)
        assert after == second and wrote.plaintext == b"" or wrote.plaintext is None
        assert len(wrote.courier_identity_hash) == 32 and wrote.courier_queue_id == b"courier"
        read, after = await waiting
        assert read.plaintext == whole and after == second
        read, _ = await self.read(pair.read_cap, first, no_retry_on_box_id_not_found=True)
        assert read.plaintext == whole
        done("a read that waits for its write, a read without retry")

        # The courier asks the replicas five times more, within two seconds here, and then answers from its cache.
        third = await self.client.next_message_box_index(second)
        early = await self.client.encrypt_read(pair.read_cap, third)
        waiting = asyncio.create_task(self.started(early, pair.read_cap, None, third))
        await asyncio.sleep(3)
        await self.write(b"late", pair.write_cap, third, no_idempotent_box_already_exists=True)
        read, _ = await self.read(pair.read_cap, third, no_retry_on_box_id_not_found=True)
        assert read.plaintext == b"late"
        finished, _ = await asyncio.wait([waiting], timeout=7)
        assert not finished, "a real courier's cache would not have shown the box"
        await self.client.cancel_resending_encrypted_message(bytes(early.envelope_hash))
        with refused(upstream.StartResendingCancelledError):
            await waiting
        done("a read before its write, which its courier's cache keeps from it")

        await self.write(whole, pair.write_cap, first, no_idempotent_box_already_exists=True)
        await self.write(b"other", pair.write_cap, first)
        with refused(upstream.BoxAlreadyExistsError):
            await self.write(b"other", pair.write_cap, first, no_idempotent_box_already_exists=True)
        assert (await self.read(pair.read_cap, first))[0].plaintext == whole
        done("a rewrite, a conflict kept silent, a strict conflict")

        await self.ctl("storage-full", "on")
        with refused(upstream.StorageFullError):
            await self.write(b"no room", pair.write_cap, second, no_idempotent_box_already_exists=True)
        await self.ctl("storage-full", "off")
        done("a full storage")

    async def cancels(self) -> None:
        pair = await self.pair()
        asked = await self.client.encrypt_read(pair.read_cap, pair.first_message_index)
        waiting = asyncio.create_task(self.started(asked, pair.read_cap, None, pair.first_message_index))
        # A cancel reaches only what has been dispatched.
        while not waiting.done():
            await self.client.cancel_resending_encrypted_message(bytes(asked.envelope_hash))
            await asyncio.sleep(0.02)
        with refused(upstream.StartResendingCancelledError):
            await waiting
        await self.client.cancel_resending_encrypted_message(os.urandom(32))
        done("cancel")

        await self.ctl("faults", "set", "loss=1.0")
        waiting = asyncio.create_task(self.client.start_resending_copy_command(pair.write_cap))
        while not waiting.done():
            await self.client.cancel_resending_copy_command(upstream.blake2_256_sum(pair.write_cap))
            await asyncio.sleep(0.02)
        await self.ctl("faults", "clear")
        with refused(upstream.StartResendingCancelledError):
            await waiting
        done("cancel of a copy")

    async def tombstones(self) -> None:
        pair = await self.pair()
        index = pair.first_message_index
        await self.write(b"to be deleted", pair.write_cap, index, no_idempotent_box_already_exists=True)
        nothing = await self.client.tombstone_range(pair.write_cap, index, 0)
        assert nothing.envelopes == [] and nothing.next == index
        with refused(ValueError):
            await self.client.tombstone_range(None, index, 1)
        made = await self.client.tombstone_range(pair.write_cap, index, 2)
        assert [envelope.box_index for envelope in made.envelopes][0] == index and len(made.envelopes) == 2
        for envelope in made.envelopes:
            await self.started(envelope, None, pair.write_cap, None, no_idempotent_box_already_exists=True)
        for envelope in made.envelopes:
            with refused(upstream.TombstoneError):
                await self.read(pair.read_cap, envelope.box_index)
        with refused(upstream.BoxAlreadyExistsError):
            await self.write(b"too late", pair.write_cap, index, no_idempotent_box_already_exists=True)
        done("tombstones")

    async def envelopes(self) -> None:
        client = self.client
        chunk = client.pigeonhole_geometry.max_plaintext_payload_length - 4
        whole = os.urandom(2 * chunk + 100)
        one, other, temporary = await self.pair(), await self.pair(), await self.pair()

        start = await client.create_courier_envelopes_from_payload(
            whole[:chunk], one.write_cap, one.first_message_index, True, False
        )
        end = await client.create_courier_envelopes_from_payload(
            whole[chunk:], one.write_cap, start.next_dest_index, False, True
        )
        await self.stream(start.envelopes + end.envelopes, temporary.write_cap, temporary.first_message_index)
        await client.start_resending_copy_command(temporary.write_cap)
        assert await self.content(one.read_cap, one.first_message_index, len(whole)) == whole
        done("envelopes of a payload in two calls, copied by a random courier")

        one, temporary = await self.pair(), await self.pair()
        made = await client.create_courier_envelopes_from_multi_payload(
            [
                {"payload": whole, "write_cap": one.write_cap, "start_index": one.first_message_index},
                {"payload": b"short", "write_cap": other.write_cap, "start_index": other.first_message_index},
            ],
            True,
            False,
        )
        assert made.buffer and len(made.next_dest_indices) == 2
        deleted = await client.create_courier_envelopes_from_tombstone_range(
            other.write_cap, made.next_dest_indices[1], 2, False, False, buffer=made.buffer
        )
        last = await client.create_courier_envelopes_from_multi_payload(
            [{"payload": b"after", "write_cap": other.write_cap, "start_index": deleted.next_dest_index}],
            False,
            True,
            buffer=deleted.buffer,
        )
        assert not last.buffer
        elements = made.envelopes + deleted.envelopes + last.envelopes
        wrote, _ = await self.stream(elements, temporary.write_cap, temporary.first_message_index)
        await client.start_resending_copy_command(
            temporary.write_cap, wrote.courier_identity_hash, wrote.courier_queue_id
        )
        assert await self.content(one.read_cap, one.first_message_index, len(whole)) == whole
        read, index = await self.read(other.read_cap, other.first_message_index)
        assert read.plaintext == b"short" and index == made.next_dest_indices[1]
        for _ in range(2):
            with refused(upstream.TombstoneError):
                await self.read(other.read_cap, index)
            index = await client.next_message_box_index(index)
        assert (await self.read(other.read_cap, index))[0].plaintext == b"after"
        done("envelopes of payloads and tombstones over three calls, copied by one courier")

    async def copies(self) -> None:
        one, temporary = await self.pair(), await self.pair()
        first = one.first_message_index
        await self.write(b"was first", one.write_cap, first, no_idempotent_box_already_exists=True)
        made = await self.client.create_courier_envelopes_from_payload(b"second", one.write_cap, first, True, True)
        await self.stream(made.envelopes, temporary.write_cap, temporary.first_message_index)
        try:
            await self.client.start_resending_copy_command(temporary.write_cap)
        except upstream.CopyCommandFailedError as failed:
            assert (failed.replica_error_code, failed.failed_envelope_index) == (10, 1), failed
        else:
            raise AssertionError("copied over a box")
        assert (await self.read(one.read_cap, first))[0].plaintext == b"was first"
        done("a copy that fails")

    async def vouchers(self) -> None:
        client = self.client
        joiner = await self.pair()
        minted = await client.voucher_mint(joiner.write_cap, "Ada")
        stream = await client.voucher_derive_stream(minted.voucher)
        assert (stream.voucher_read_cap, stream.voucher_write_cap) == (
            minted.voucher_read_cap,
            minted.voucher_write_cap,
        )
        first = stream.voucher_read_cap[-INDEX:]
        _, second = await self.write(minted.voucher_payload, minted.voucher_write_cap, first)
        payload = (await self.read(stream.voucher_read_cap, first))[0].plaintext
        with refused(Exception, "does not hash to the voucher"):
            await client.voucher_induct(os.urandom(32), payload, b"the others")
        inducted = await client.voucher_induct(minted.voucher, payload, b"the others")
        assert inducted.display_name == "Ada" and inducted.voucher_read_cap == minted.voucher_read_cap
        await self.write(inducted.sealed_reply, inducted.voucher_write_cap, second)
        sealed = (await self.read(minted.voucher_read_cap, second))[0].plaintext
        with refused(Exception, "voucher_open failed"):
            await client.voucher_open(os.urandom(len(minted.voucher_secret_key)), sealed, joiner.write_cap)
        opened = await client.voucher_open(minted.voucher_secret_key, sealed, joiner.write_cap)
        assert opened.who_reply == b"the others" and opened.salt == inducted.salt
        live = opened.mutated_message_write_cap
        await self.write(b"hello", live, live[-INDEX:])
        read_cap = inducted.mutated_message_read_cap
        assert (await self.read(read_cap, read_cap[-INDEX:]))[0].plaintext == b"hello"
        done("vouchers: mint, derive, induct, open")

    async def reads_over(self, words: list[str], announced: int) -> None:
        client = self.client
        pair = await self.pair()
        asked = await client.encrypt_read(pair.read_cap, pair.first_message_index)
        waiting = asyncio.create_task(self.started(asked, pair.read_cap, None, pair.first_message_index))
        # The next answer comes after the read was sent.
        await self.pair()
        tokens, shutdowns = len(client.told("session_token_reply")), len(client.told("shutdown_event"))
        await self.ctl(*words)
        await self.event("disconnected")
        await self.back(tokens)
        # Its `is_graceful` depends on which of its tasks runs first; the event itself came or not.
        assert len(client.told("shutdown_event")) - shutdowns == announced, words
        await self.write(b"after the break", pair.write_cap, pair.first_message_index)
        assert (await asyncio.wait_for(waiting, 10)).plaintext == b"after the break"

    async def breaks(self) -> None:
        client = self.client
        await self.ctl("link", "down")
        await self.event("status", lambda event: not event["is_connected"])
        node, queue = client.get_service("echo").to_destination()
        for call in (
            lambda: client.send_message(client.new_surb_id(), b"", node, queue),
            lambda: client.send_message_without_reply(b"", node, queue),
            lambda: client.blocking_send_message(b"", node, queue),
        ):
            with refused(upstream.ThinClientOfflineError):
                await call()
        await self.pair()
        await self.ctl("link", "up")
        await self.event("status", lambda event: event["is_connected"])
        done("offline and back")

        for words, announced in ((["disconnect"], 0), (["restart"], 1), (["restart", "--killed"], 0)):
            # A courier asks for a read again within a second, and answers from its cache from then on. Where the break took
            # longer, on a busy machine, that is no fault of a client's: once more.
            for left in reversed(range(4)):
                try:
                    await self.reads_over(words, announced)
                    break
                except asyncio.TimeoutError:
                    if not left:
                        raise
            done(f"a read over: {' '.join(words)}")

        # Malformed capabilities end a daemon's connection; the call that sent one hangs.
        tokens = len(client.told("session_token_reply"))
        hanging = asyncio.create_task(client.next_message_box_index(b"no index"))
        await self.event("disconnected")
        hanging.cancel()
        await self.back(tokens)
        await self.pair()
        done("a connection ended by a malformed index")

    async def resume(self) -> None:
        pair = await self.pair()
        first = pair.first_message_index
        asked = await self.client.encrypt_read(pair.read_cap, first)
        waiting = asyncio.create_task(self.started(asked, pair.read_cap, None, first))
        await self.pair()
        before = self.client
        before.disconnect()
        waiting.cancel()
        await self.ended(before)
        self.client = Watched(self.started_by())
        self.client.instance_token = before.instance_token
        await self.client.start(asyncio.get_running_loop())
        (token,) = self.client.told("session_token_reply")
        assert token["resumed"], token
        await self.write(b"for who comes back", pair.write_cap, first)
        kind = "start_resending_encrypted_message_reply"
        while not any(reply["plaintext"] == b"for who comes back" for reply in self.client.told(kind)):
            await asyncio.sleep(0.02)
        done("disconnect, and the session resumed")

        self.client.stop()
        await self.ended(self.client)
        after = Watched(self.started_by())
        after.instance_token = before.instance_token
        await after.start(asyncio.get_running_loop())
        assert not after.told("session_token_reply")[0]["resumed"]
        after.stop()
        done("stop ends the session")

    def texts(self) -> None:
        for code in range(33):
            assert upstream.thin_client_error_to_string(code)
        assert upstream.error_code_to_exception(0) is None and upstream.copy_reply_to_exception({}) is None
        errors = {code: upstream.error_code_to_exception(code) for code in range(1, 33)}
        expected = [code for code, error in errors.items() if upstream.is_expected_outcome(error)]
        assert expected == [1, 10, 11]
        assert isinstance(upstream.error_code_to_exception(32), upstream.CourierInvalidEpochError)
        done("error texts")


async def main() -> None:
    await Peer(*sys.argv[1:]).run()
    print("whole API exercised")


asyncio.run(asyncio.wait_for(main(), 200))
