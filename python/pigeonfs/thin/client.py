"""The whole client."""

from . import pigeonhole
from .core import SessionClient


class ThinClient(SessionClient):
    """A session with the daemon (kpclientd), and all that it does for programs: see :class:`~pigeonfs.thin.core.SessionClient`
    for its life, and :mod:`pigeonfs.thin.pigeonhole` for boxes, copies and vouchers."""

    async def __aenter__(self) -> "ThinClient":
        await self.start()
        return self

    new_keypair = pigeonhole.new_keypair
    encrypt_read = pigeonhole.encrypt_read
    encrypt_write = pigeonhole.encrypt_write
    start_resending_encrypted_message = pigeonhole.start_resending_encrypted_message
    cancel_resending_encrypted_message = pigeonhole.cancel_resending_encrypted_message
    next_message_box_index = pigeonhole.next_message_box_index
    get_message_box_index_counter = pigeonhole.get_message_box_index_counter
    start_resending_copy_command = pigeonhole.start_resending_copy_command
    cancel_resending_copy_command = pigeonhole.cancel_resending_copy_command
    create_courier_envelopes_from_payload = pigeonhole.create_courier_envelopes_from_payload
    create_courier_envelopes_from_multi_payload = pigeonhole.create_courier_envelopes_from_multi_payload
    tombstone_range = pigeonhole.tombstone_range
    create_courier_envelopes_from_tombstone_range = pigeonhole.create_courier_envelopes_from_tombstone_range
    voucher_mint = pigeonhole.voucher_mint
    voucher_induct = pigeonhole.voucher_induct
    voucher_open = pigeonhole.voucher_open
    voucher_derive_stream = pigeonhole.voucher_derive_stream
