"""Boxes, copy streams and contact vouchers: what the daemon does for Pigeonhole channels.

The functions are methods of :class:`~pigeonfs.thin.ThinClient`."""

from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, List, Optional, TypeVar

from .codes import copy_reply_to_exception, error_code_to_exception
from .core import SessionClient

__all__ = [
    "CreateEnvelopesResult",
    "EncryptReadResult",
    "EncryptWriteResult",
    "KeypairResult",
    "StartResendingResult",
    "TombstoneEnvelope",
    "TombstoneRangeResult",
    "VoucherInductResult",
    "VoucherMintResult",
    "VoucherOpenResult",
    "VoucherStreamResult",
    "cancel_resending_copy_command",
    "cancel_resending_encrypted_message",
    "create_courier_envelopes_from_multi_payload",
    "create_courier_envelopes_from_payload",
    "create_courier_envelopes_from_tombstone_range",
    "encrypt_read",
    "encrypt_write",
    "get_message_box_index_counter",
    "new_keypair",
    "next_message_box_index",
    "start_resending_copy_command",
    "start_resending_encrypted_message",
    "tombstone_range",
    "voucher_derive_stream",
    "voucher_induct",
    "voucher_mint",
    "voucher_open",
]

_Kind = TypeVar("_Kind")


@dataclass
class KeypairResult:
    """The capabilities of a channel, and the first index of both."""

    write_cap: bytes
    read_cap: bytes
    first_message_index: bytes


@dataclass
class EncryptReadResult:
    """An envelope that asks for a box, and the index behind that box."""

    message_ciphertext: bytes
    envelope_descriptor: bytes
    envelope_hash: bytes
    next_message_box_index: bytes


@dataclass
class EncryptWriteResult:
    """An envelope that writes a box, and the index behind that box."""

    message_ciphertext: bytes
    envelope_descriptor: bytes
    envelope_hash: bytes
    next_message_box_index: bytes


@dataclass
class StartResendingResult:
    """What a box holds, for reads; and the courier that dealt with the envelope."""

    plaintext: bytes
    courier_identity_hash: Optional[bytes]
    courier_queue_id: Optional[bytes]


@dataclass
class VoucherMintResult:
    """A voucher to hand over, what to publish in the first box of its stream, and the key that opens the answer."""

    voucher: bytes
    voucher_payload: bytes
    voucher_write_cap: bytes
    voucher_read_cap: bytes
    voucher_secret_key: bytes
    voucher_public_key: bytes


@dataclass
class VoucherInductResult:
    """Who joins, the capability to read them by, and the answer for the second box of the voucher's stream."""

    display_name: str
    mutated_message_read_cap: bytes
    sealed_reply: bytes
    voucher_write_cap: bytes
    voucher_read_cap: bytes
    salt: bytes


@dataclass
class VoucherOpenResult:
    """The inductor's answer, and the capability to write by from now on."""

    who_reply: bytes
    salt: bytes
    mutated_message_write_cap: bytes


@dataclass
class VoucherStreamResult:
    """The capabilities of a voucher's stream."""

    voucher_write_cap: bytes
    voucher_read_cap: bytes


@dataclass
class CreateEnvelopesResult:
    """Elements of a copy stream, each the plaintext of one box, and where the next call goes on."""

    envelopes: List[bytes]
    buffer: bytes = b""
    next_dest_index: Optional[bytes] = None
    next_dest_indices: Optional[List[bytes]] = None


@dataclass
class TombstoneEnvelope:
    """An envelope that deletes a box."""

    message_ciphertext: bytes
    envelope_descriptor: bytes
    envelope_hash: bytes
    box_index: bytes


@dataclass
class TombstoneRangeResult:
    """Envelopes that delete boxes in a row, and the index behind them."""

    envelopes: List[TombstoneEnvelope]
    next: bytes


async def new_keypair(self: SessionClient, seed: bytes, *, timeout: Optional[float] = None) -> KeypairResult:
    """The capabilities of a seed of 32 bytes."""
    if len(seed) != 32:
        raise ValueError("seed must be exactly 32 bytes")
    reply = await self._ask("new_keypair", timeout, seed=seed)
    return KeypairResult(reply["write_cap"], reply["read_cap"], reply["first_message_index"])


async def encrypt_read(
    self: SessionClient, read_cap: bytes, message_box_index: bytes, *, timeout: Optional[float] = None
) -> EncryptReadResult:
    """The envelope that asks for a box. Fresh for each call, and good for one ``start_resending_encrypted_message``."""
    reply = await self._ask("encrypt_read", timeout, read_cap=read_cap, message_box_index=message_box_index)
    return EncryptReadResult(**_envelope(reply))


async def encrypt_write(
    self: SessionClient,
    plaintext: bytes,
    write_cap: bytes,
    message_box_index: bytes,
    *,
    timeout: Optional[float] = None,
) -> EncryptWriteResult:
    """The envelope that writes a box; ``b""`` deletes it. At most ``PigeonholeGeometry.max_plaintext_payload_length`` bytes."""
    body = {"plaintext": plaintext, "write_cap": write_cap, "message_box_index": message_box_index}
    return EncryptWriteResult(**_envelope(await self._ask("encrypt_write", timeout, **body)))


def _envelope(reply: Dict[str, Any]) -> Dict[str, bytes]:
    keys = ("message_ciphertext", "envelope_descriptor", "envelope_hash", "next_message_box_index")
    return {key: reply[key] for key in keys}


async def start_resending_encrypted_message(
    self: SessionClient,
    read_cap: Optional[bytes],
    write_cap: Optional[bytes],
    message_box_index: Optional[bytes],
    reply_index: Optional[int],
    envelope_descriptor: bytes,
    message_ciphertext: bytes,
    envelope_hash: bytes,
    *,
    no_retry_on_box_id_not_found: bool = False,
    no_idempotent_box_already_exists: bool = False,
    timeout: Optional[float] = None,
) -> StartResendingResult:
    """Sends an envelope until it is answered. A read takes ``read_cap`` and ``message_box_index``, a write ``write_cap``.

    A read waits for its box; with ``no_retry_on_box_id_not_found`` it raises BoxIDNotFoundError. (A courier answers an envelope
    from its cache after the first seconds: to wait for long, ask again with a fresh envelope.) A write ends when a courier has
    it; with ``no_idempotent_box_already_exists`` when a replica has it, or BoxAlreadyExistsError says that it holds other
    contents. Without ``timeout`` it waits without an end."""
    body = {
        "read_cap": read_cap,
        "write_cap": write_cap,
        "message_box_index": message_box_index,
        "reply_index": reply_index,
        "envelope_descriptor": envelope_descriptor,
        "message_ciphertext": message_ciphertext,
        "envelope_hash": envelope_hash,
        "no_retry_on_box_id_not_found": no_retry_on_box_id_not_found,
        "no_idempotent_box_already_exists": no_idempotent_box_already_exists,
    }
    reply = await self._send_and_wait(request={"start_resending_encrypted_message": body}, timeout=timeout)
    failed = error_code_to_exception(reply.get("error_code") or 0)
    if failed is not None:
        raise failed
    return StartResendingResult(
        plaintext=reply.get("plaintext") or b"",
        courier_identity_hash=reply.get("courier_identity_hash"),
        courier_queue_id=reply.get("courier_queue_id"),
    )


async def cancel_resending_encrypted_message(
    self: SessionClient, envelope_hash: bytes, *, timeout: Optional[float] = None
) -> None:
    """Ends what was started with an envelope: its wait raises StartResendingCancelledError. Without a daemon it ends here now,
    and there when the daemon is back."""
    if not self._give_up(bytes(envelope_hash)):
        await self._ask("cancel_resending_encrypted_message", timeout, envelope_hash=envelope_hash)


async def next_message_box_index(
    self: SessionClient, message_box_index: bytes, *, timeout: Optional[float] = None
) -> bytes:
    """The index behind an index."""
    reply = await self._ask("next_message_box_index", timeout, message_box_index=message_box_index)
    index: bytes = reply["next_message_box_index"]
    return index


async def get_message_box_index_counter(
    self: SessionClient, message_box_index: bytes, *, timeout: Optional[float] = None
) -> int:
    """The counter of an index, by which two indices of a channel are ordered."""
    reply = await self._ask("get_message_box_index_counter", timeout, message_box_index=message_box_index)
    counter: int = reply["counter"]
    return counter


async def start_resending_copy_command(
    self: SessionClient,
    write_cap: bytes,
    courier_identity_hash: Optional[bytes] = None,
    courier_queue_id: Optional[bytes] = None,
    *,
    timeout: Optional[float] = None,
) -> None:
    """Has a courier carry out the copy stream that ``write_cap`` wrote, and waits for its end: the courier that is named, or one
    that the daemon draws. Raises CopyCommandFailedError where an envelope was refused. Without ``timeout`` it waits without an
    end."""
    body = {"write_cap": write_cap}
    if courier_identity_hash is not None:
        body["courier_identity_hash"] = courier_identity_hash
    if courier_queue_id is not None:
        body["courier_queue_id"] = courier_queue_id
    reply = await self._send_and_wait(request={"start_resending_copy_command": body}, timeout=timeout)
    failed = copy_reply_to_exception(reply)
    if failed is not None:
        raise failed


async def cancel_resending_copy_command(
    self: SessionClient, write_cap_hash: bytes, *, timeout: Optional[float] = None
) -> None:
    """Ends a copy command; ``write_cap_hash`` is ``blake2_256_sum`` of its write capability. What the courier has begun, it goes
    on with."""
    if not self._give_up(bytes(write_cap_hash)):
        await self._ask("cancel_resending_copy_command", timeout, write_cap_hash=write_cap_hash)


async def create_courier_envelopes_from_payload(
    self: SessionClient,
    payload: bytes,
    dest_write_cap: bytes,
    dest_start_index: bytes,
    is_start: bool,
    is_last: bool,
    *,
    timeout: Optional[float] = None,
) -> CreateEnvelopesResult:
    """The elements of a copy stream that write a payload of at most 10 MiB to a channel. ``is_start`` begins the stream,
    ``is_last`` ends it."""
    reply = await self._ask(
        "create_courier_envelopes_from_payload",
        timeout,
        payload=payload,
        dest_write_cap=dest_write_cap,
        dest_start_index=dest_start_index,
        is_start=is_start,
        is_last=is_last,
    )
    return CreateEnvelopesResult(reply.get("envelopes") or [], next_dest_index=reply.get("next_dest_index"))


async def create_courier_envelopes_from_multi_payload(
    self: SessionClient,
    destinations: List[Dict[str, Any]],
    is_start: bool,
    is_last: bool,
    buffer: Optional[bytes] = None,
    *,
    timeout: Optional[float] = None,
) -> CreateEnvelopesResult:
    """The elements of a copy stream that write payloads to several channels: each destination has a ``payload``, a ``write_cap``
    and a ``start_index``. ``buffer`` is what the call before gave back."""
    body: Dict[str, Any] = {"destinations": destinations, "is_start": is_start, "is_last": is_last, "buffer": buffer}
    reply = await self._ask("create_courier_envelopes_from_multi_payload", timeout, **body)
    return CreateEnvelopesResult(
        reply.get("envelopes") or [],
        buffer=reply.get("buffer") or b"",
        next_dest_indices=reply.get("next_dest_indices"),
    )


async def tombstone_range(
    self: SessionClient, write_cap: bytes, start: bytes, max_count: int, *, timeout: Optional[float] = None
) -> TombstoneRangeResult:
    """The envelopes that delete ``max_count`` boxes from ``start`` on; each is to be started."""
    if write_cap is None:
        raise ValueError("write_cap cannot be None")
    if start is None:
        raise ValueError("start index cannot be None")
    envelopes: List[TombstoneEnvelope] = []
    at = start
    while len(envelopes) < max_count:
        made = await encrypt_write(self, b"", write_cap, at, timeout=timeout)
        envelopes.append(
            TombstoneEnvelope(made.message_ciphertext, made.envelope_descriptor, made.envelope_hash, box_index=at)
        )
        at = made.next_message_box_index
    return TombstoneRangeResult(envelopes, at)


async def create_courier_envelopes_from_tombstone_range(
    self: SessionClient,
    dest_write_cap: bytes,
    dest_start_index: bytes,
    max_count: int,
    is_start: bool,
    is_last: bool,
    buffer: Optional[bytes] = None,
    *,
    timeout: Optional[float] = None,
) -> CreateEnvelopesResult:
    """The elements of a copy stream that delete ``max_count`` boxes of a channel. ``buffer`` is what the call before gave
    back."""
    reply = await self._ask(
        "create_courier_envelopes_from_tombstone_range",
        timeout,
        dest_write_cap=dest_write_cap,
        dest_start_index=dest_start_index,
        max_count=max_count,
        is_start=is_start,
        is_last=is_last,
        buffer=buffer,
    )
    return CreateEnvelopesResult(
        reply.get("envelopes") or [],
        buffer=reply.get("buffer") or b"",
        next_dest_index=reply.get("next_dest_index"),
    )


async def voucher_mint(
    self: SessionClient, message_write_cap: bytes, display_name: str, *, timeout: Optional[float] = None
) -> VoucherMintResult:
    """A voucher of whoever writes by ``message_write_cap`` and wants to join."""
    reply = await self._ask("voucher_mint", timeout, message_write_cap=message_write_cap, display_name=display_name)
    return _result(VoucherMintResult, reply)


async def voucher_induct(
    self: SessionClient, voucher: bytes, voucher_payload: bytes, who_reply: bytes, *, timeout: Optional[float] = None
) -> VoucherInductResult:
    """Accepts whoever published ``voucher_payload`` for this voucher, with ``who_reply`` as the answer."""
    body = {"voucher": voucher, "voucher_payload": voucher_payload, "who_reply": who_reply}
    return _result(VoucherInductResult, await self._ask("voucher_induct", timeout, **body))


async def voucher_open(
    self: SessionClient,
    voucher_secret_key: bytes,
    sealed_reply: bytes,
    message_write_cap: bytes,
    *,
    timeout: Optional[float] = None,
) -> VoucherOpenResult:
    """Opens the answer to a voucher of one's own."""
    body = {
        "voucher_secret_key": voucher_secret_key,
        "sealed_reply": sealed_reply,
        "message_write_cap": message_write_cap,
    }
    return _result(VoucherOpenResult, await self._ask("voucher_open", timeout, **body))


async def voucher_derive_stream(
    self: SessionClient, voucher: bytes, *, timeout: Optional[float] = None
) -> VoucherStreamResult:
    """The stream of a voucher, through which both sides meet."""
    return _result(VoucherStreamResult, await self._ask("voucher_derive_stream", timeout, voucher=voucher))


def _result(kind: Callable[..., _Kind], reply: Dict[str, Any]) -> _Kind:
    return kind(**{field.name: reply[field.name] for field in fields(kind)})  # type: ignore[arg-type]
