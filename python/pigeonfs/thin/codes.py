"""The error codes of the protocol, and the exceptions that they become."""

from typing import Any, Callable, Dict, Optional

__all__ = [
    "BACAPDecryptionFailedError",
    "BoxAlreadyExistsError",
    "BoxIDNotFoundError",
    "ConfigError",
    "CopyCommandFailedError",
    "CourierCacheCorruptionError",
    "CourierError",
    "CourierInvalidEnvelopeError",
    "CourierInvalidEpochError",
    "CourierPropagationError",
    "DatabaseFailureError",
    "InvalidBoxIDError",
    "InvalidEpochError",
    "InvalidPayloadError",
    "InvalidSignatureError",
    "InvalidTombstoneSignatureError",
    "MKEMDecryptionFailedError",
    "PayloadTooLargeError",
    "REPLICA_ERROR_BOX_ALREADY_EXISTS",
    "REPLICA_ERROR_BOX_ID_NOT_FOUND",
    "REPLICA_ERROR_DATABASE_FAILURE",
    "REPLICA_ERROR_INTERNAL_ERROR",
    "REPLICA_ERROR_INVALID_BOX_ID",
    "REPLICA_ERROR_INVALID_EPOCH",
    "REPLICA_ERROR_INVALID_PAYLOAD",
    "REPLICA_ERROR_INVALID_SIGNATURE",
    "REPLICA_ERROR_REPLICATION_FAILED",
    "REPLICA_ERROR_STORAGE_FULL",
    "REPLICA_ERROR_TOMBSTONE",
    "REPLICA_SUCCESS",
    "ReplicaError",
    "ReplicaInternalError",
    "ReplicationFailedError",
    "StartResendingCancelledError",
    "StorageFullError",
    "THIN_CLIENT_CAPABILITY_ALREADY_IN_USE",
    "THIN_CLIENT_ERROR_BACAP_DECRYPTION_FAILED",
    "THIN_CLIENT_ERROR_CHANNEL_NOT_FOUND",
    "THIN_CLIENT_ERROR_CONNECTION_LOST",
    "THIN_CLIENT_ERROR_COPY_COMMAND_FAILED",
    "THIN_CLIENT_ERROR_COURIER_CACHE_CORRUPTION",
    "THIN_CLIENT_ERROR_COURIER_INVALID_ENVELOPE",
    "THIN_CLIENT_ERROR_COURIER_INVALID_EPOCH",
    "THIN_CLIENT_ERROR_DUPLICATE_CAPABILITY",
    "THIN_CLIENT_ERROR_INTERNAL_ERROR",
    "THIN_CLIENT_ERROR_INVALID_CHANNEL",
    "THIN_CLIENT_ERROR_INVALID_PAYLOAD",
    "THIN_CLIENT_ERROR_INVALID_READ_CAPABILITY",
    "THIN_CLIENT_ERROR_INVALID_REQUEST",
    "THIN_CLIENT_ERROR_INVALID_RESUME_READ_CHANNEL_REQUEST",
    "THIN_CLIENT_ERROR_INVALID_RESUME_WRITE_CHANNEL_REQUEST",
    "THIN_CLIENT_ERROR_INVALID_TOMBSTONE_SIG",
    "THIN_CLIENT_ERROR_INVALID_WRITE_CAPABILITY",
    "THIN_CLIENT_ERROR_MAX_RETRIES",
    "THIN_CLIENT_ERROR_MKEM_DECRYPTION_FAILED",
    "THIN_CLIENT_ERROR_PAYLOAD_TOO_LARGE",
    "THIN_CLIENT_ERROR_PERMISSION_DENIED",
    "THIN_CLIENT_ERROR_SERVICE_UNAVAILABLE",
    "THIN_CLIENT_ERROR_START_RESENDING_CANCELLED",
    "THIN_CLIENT_ERROR_TIMEOUT",
    "THIN_CLIENT_ERROR_VOUCHER_HASH_MISMATCH",
    "THIN_CLIENT_ERROR_VOUCHER_SEAL_OPEN_FAILED",
    "THIN_CLIENT_ERROR_VOUCHER_SIGNATURE_INVALID",
    "THIN_CLIENT_IMPOSSIBLE_HASH_ERROR",
    "THIN_CLIENT_IMPOSSIBLE_NEW_STATEFUL_WRITER_ERROR",
    "THIN_CLIENT_IMPOSSIBLE_NEW_WRITE_CAP_ERROR",
    "THIN_CLIENT_PROPAGATION_ERROR",
    "THIN_CLIENT_SUCCESS",
    "ThinClientOfflineError",
    "TombstoneError",
    "copy_reply_to_exception",
    "error_code_to_exception",
    "is_expected_outcome",
    "thin_client_error_to_string",
]

REPLICA_SUCCESS = 0
REPLICA_ERROR_BOX_ID_NOT_FOUND = 1
REPLICA_ERROR_INVALID_BOX_ID = 2
REPLICA_ERROR_INVALID_SIGNATURE = 3
REPLICA_ERROR_DATABASE_FAILURE = 4
REPLICA_ERROR_INVALID_PAYLOAD = 5
REPLICA_ERROR_STORAGE_FULL = 6
REPLICA_ERROR_INTERNAL_ERROR = 7
REPLICA_ERROR_INVALID_EPOCH = 8
REPLICA_ERROR_REPLICATION_FAILED = 9
REPLICA_ERROR_BOX_ALREADY_EXISTS = 10
REPLICA_ERROR_TOMBSTONE = 11

THIN_CLIENT_SUCCESS = 0
THIN_CLIENT_ERROR_CONNECTION_LOST = 1
THIN_CLIENT_ERROR_TIMEOUT = 2
THIN_CLIENT_ERROR_INVALID_REQUEST = 3
THIN_CLIENT_ERROR_INTERNAL_ERROR = 4
THIN_CLIENT_ERROR_MAX_RETRIES = 5
THIN_CLIENT_ERROR_INVALID_CHANNEL = 6
THIN_CLIENT_ERROR_CHANNEL_NOT_FOUND = 7
THIN_CLIENT_ERROR_PERMISSION_DENIED = 8
THIN_CLIENT_ERROR_INVALID_PAYLOAD = 9
THIN_CLIENT_ERROR_SERVICE_UNAVAILABLE = 10
THIN_CLIENT_ERROR_DUPLICATE_CAPABILITY = 11
THIN_CLIENT_ERROR_COURIER_CACHE_CORRUPTION = 12
THIN_CLIENT_PROPAGATION_ERROR = 13
THIN_CLIENT_ERROR_INVALID_WRITE_CAPABILITY = 14
THIN_CLIENT_ERROR_INVALID_READ_CAPABILITY = 15
THIN_CLIENT_ERROR_INVALID_RESUME_WRITE_CHANNEL_REQUEST = 16
THIN_CLIENT_ERROR_INVALID_RESUME_READ_CHANNEL_REQUEST = 17
THIN_CLIENT_IMPOSSIBLE_HASH_ERROR = 18
THIN_CLIENT_IMPOSSIBLE_NEW_WRITE_CAP_ERROR = 19
THIN_CLIENT_IMPOSSIBLE_NEW_STATEFUL_WRITER_ERROR = 20
THIN_CLIENT_CAPABILITY_ALREADY_IN_USE = 21
THIN_CLIENT_ERROR_MKEM_DECRYPTION_FAILED = 22
THIN_CLIENT_ERROR_BACAP_DECRYPTION_FAILED = 23
THIN_CLIENT_ERROR_START_RESENDING_CANCELLED = 24
THIN_CLIENT_ERROR_INVALID_TOMBSTONE_SIG = 25
THIN_CLIENT_ERROR_COPY_COMMAND_FAILED = 26
THIN_CLIENT_ERROR_PAYLOAD_TOO_LARGE = 27
THIN_CLIENT_ERROR_VOUCHER_HASH_MISMATCH = 28
THIN_CLIENT_ERROR_VOUCHER_SIGNATURE_INVALID = 29
THIN_CLIENT_ERROR_VOUCHER_SEAL_OPEN_FAILED = 30
THIN_CLIENT_ERROR_COURIER_INVALID_ENVELOPE = 31
THIN_CLIENT_ERROR_COURIER_INVALID_EPOCH = 32

# The texts are upstream's, which programs may look for.
_TEXTS = (
    "Success",
    "Connection lost",
    "Timeout",
    "Invalid request",
    "Internal error",
    "Maximum retries exceeded",
    "Invalid channel",
    "Channel not found",
    "Permission denied",
    "Invalid payload",
    "Service unavailable",
    "Duplicate capability",
    "Courier cache corruption",
    "Courier propagation error",
    "Invalid write capability",
    "Invalid read capability",
    "Invalid resume write channel request",
    "Invalid resume read channel request",
    "Impossible hash error",
    "Failed to create new write capability",
    "Failed to create new stateful writer",
    "Capability already in use",
    "MKEM decryption failed",
    "BACAP decryption failed",
    "Start resending cancelled",
    "Invalid tombstone signature",
    "Copy command failed",
    "Payload too large",
    "Voucher payload does not hash to the voucher",
    "Voucher signed please-add did not verify",
    "Voucher sealed reply could not be opened",
    "Courier rejected the envelope as malformed",
    "Courier rejected the envelope: replica epoch outside tolerance window",
)


def thin_client_error_to_string(error_code: int) -> str:
    """What a code of the daemon means."""
    if 0 <= error_code < len(_TEXTS):
        return _TEXTS[error_code]
    return f"Unknown thin client error code: {error_code}"


class ConfigError(Exception):
    """The configuration file is missing, malformed, or holds what it must not."""


class ThinClientOfflineError(Exception):
    """The daemon has no connection to the mixnet, and a message to a service needs one."""


class ReplicaError(Exception):
    """A storage replica's own answer."""


class BoxIDNotFoundError(ReplicaError):
    """No replica that was asked has the box. A hint, and never a proof that there is none."""


class InvalidBoxIDError(ReplicaError):
    """The box's identity is invalid."""


class InvalidSignatureError(ReplicaError):
    """The box's signature is invalid."""


class DatabaseFailureError(ReplicaError):
    """The replica's database failed: try again later."""


class InvalidPayloadError(ReplicaError):
    """The box's payload has another length than the network's boxes."""


class StorageFullError(ReplicaError):
    """The replica's storage is full: try again later."""


class ReplicaInternalError(ReplicaError):
    """An error inside the replica: try again later."""


class InvalidEpochError(ReplicaError):
    """The epoch is invalid: encrypt again."""


class ReplicationFailedError(ReplicaError):
    """The replica could not tell the others: try again later."""


class BoxAlreadyExistsError(ReplicaError):
    """The box holds something else already, and boxes never change."""


class TombstoneError(ReplicaError):
    """The box was deleted by its writer. An answer, not a failure."""


class InvalidTombstoneSignatureError(Exception):
    """The deletion of the box is not signed by its writer."""


class MKEMDecryptionFailedError(Exception):
    """The reply's envelope opens with no replica's key: encrypt again."""


class BACAPDecryptionFailedError(Exception):
    """The box does not open, or is not signed by its writer."""


class StartResendingCancelledError(Exception):
    """The operation was cancelled."""


class CopyCommandFailedError(Exception):
    """A courier ended a copy command at one of its envelopes; those before it are written.

    ``replica_error_code`` is what the replica said, 0 where none answered. ``failed_envelope_index`` counts the envelopes of the
    stream from 1, 0 where there was none.
    """

    def __init__(self, replica_error_code: int = 0, failed_envelope_index: int = 0) -> None:
        self.replica_error_code = replica_error_code
        self.failed_envelope_index = failed_envelope_index
        super().__init__(
            f"copy command failed: replica_error_code={replica_error_code}, failed_envelope_index={failed_envelope_index}"
        )


class PayloadTooLargeError(Exception):
    """The payload is larger than the daemon takes."""


class CourierError(Exception):
    """The courier could not take or answer the envelope; no replica has spoken."""


class CourierInvalidEnvelopeError(CourierError):
    """The courier took the envelope for malformed."""


class CourierCacheCorruptionError(CourierError):
    """The courier's cache of replies is corrupt: start again."""


class CourierPropagationError(CourierError):
    """The courier could not reach the replicas: start again."""


class CourierInvalidEpochError(CourierError):
    """The envelope is of another epoch: encrypt again."""


_EXCEPTIONS: Dict[int, Callable[[], Exception]] = {
    REPLICA_ERROR_BOX_ID_NOT_FOUND: lambda: BoxIDNotFoundError("box ID not found"),
    REPLICA_ERROR_INVALID_BOX_ID: lambda: InvalidBoxIDError("invalid box ID"),
    REPLICA_ERROR_INVALID_SIGNATURE: lambda: InvalidSignatureError("invalid signature"),
    REPLICA_ERROR_DATABASE_FAILURE: lambda: DatabaseFailureError("database failure"),
    REPLICA_ERROR_INVALID_PAYLOAD: lambda: InvalidPayloadError("invalid payload"),
    REPLICA_ERROR_STORAGE_FULL: lambda: StorageFullError("storage full"),
    REPLICA_ERROR_INTERNAL_ERROR: lambda: ReplicaInternalError("replica internal error"),
    REPLICA_ERROR_INVALID_EPOCH: lambda: InvalidEpochError("invalid epoch"),
    REPLICA_ERROR_REPLICATION_FAILED: lambda: ReplicationFailedError("replication failed"),
    REPLICA_ERROR_BOX_ALREADY_EXISTS: lambda: BoxAlreadyExistsError("box already exists"),
    REPLICA_ERROR_TOMBSTONE: lambda: TombstoneError("tombstone"),
    THIN_CLIENT_ERROR_COURIER_CACHE_CORRUPTION: lambda: CourierCacheCorruptionError("courier cache corruption"),
    THIN_CLIENT_PROPAGATION_ERROR: lambda: CourierPropagationError("courier propagation error"),
    THIN_CLIENT_ERROR_MKEM_DECRYPTION_FAILED: lambda: MKEMDecryptionFailedError("MKEM decryption failed"),
    THIN_CLIENT_ERROR_BACAP_DECRYPTION_FAILED: lambda: BACAPDecryptionFailedError("BACAP decryption failed"),
    THIN_CLIENT_ERROR_START_RESENDING_CANCELLED: lambda: StartResendingCancelledError("start resending cancelled"),
    THIN_CLIENT_ERROR_INVALID_TOMBSTONE_SIG: lambda: InvalidTombstoneSignatureError("invalid tombstone signature"),
    THIN_CLIENT_ERROR_PAYLOAD_TOO_LARGE: lambda: PayloadTooLargeError("payload too large"),
    THIN_CLIENT_ERROR_COURIER_INVALID_ENVELOPE: lambda: CourierInvalidEnvelopeError(
        "courier rejected envelope as malformed"
    ),
    THIN_CLIENT_ERROR_COURIER_INVALID_EPOCH: lambda: CourierInvalidEpochError(
        "courier rejected envelope: replica epoch outside tolerance window"
    ),
}


def error_code_to_exception(error_code: int) -> Optional[Exception]:
    """The exception that the code of a started read or write becomes; None for success."""
    if error_code == REPLICA_SUCCESS:
        return None
    made = _EXCEPTIONS.get(error_code)
    return made() if made is not None else Exception(thin_client_error_to_string(error_code))


def copy_reply_to_exception(reply: Dict[str, Any]) -> Optional[Exception]:
    """The exception that the reply to a copy command becomes; None for success."""
    error_code = reply.get("error_code") or 0
    if error_code == THIN_CLIENT_ERROR_COPY_COMMAND_FAILED:
        return CopyCommandFailedError(
            replica_error_code=reply.get("replica_error_code") or 0,
            failed_envelope_index=reply.get("failed_envelope_index") or 0,
        )
    return error_code_to_exception(error_code)


def is_expected_outcome(exc: Exception) -> bool:
    """Whether it is an answer rather than a failure: no such box, something else in it, or deleted."""
    return isinstance(exc, (TombstoneError, BoxIDNotFoundError, BoxAlreadyExistsError))
