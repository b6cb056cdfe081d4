"""Sizes of the network's packets and boxes."""

from typing import Any, Callable, Dict, Optional

from .codes import ConfigError

__all__ = ["Geometry", "PigeonholeGeometry"]


class Geometry:
    """The sizes of the network's Sphinx packets in bytes, as the daemon tells them."""

    def __init__(
        self,
        *,
        PacketLength: int,
        NrHops: int,
        HeaderLength: int,
        RoutingInfoLength: int,
        PerHopRoutingInfoLength: int,
        SURBLength: int,
        SphinxPlaintextHeaderLength: int,
        PayloadTagLength: int,
        ForwardPayloadLength: int,
        UserForwardPayloadLength: int,
        NextNodeHopLength: int,
        SPRPKeyMaterialLength: int,
        NIKEName: str = "",
        KEMName: str = "",
    ) -> None:
        self.PacketLength = PacketLength
        self.NrHops = NrHops
        self.HeaderLength = HeaderLength
        self.RoutingInfoLength = RoutingInfoLength
        self.PerHopRoutingInfoLength = PerHopRoutingInfoLength
        self.SURBLength = SURBLength
        self.SphinxPlaintextHeaderLength = SphinxPlaintextHeaderLength
        self.PayloadTagLength = PayloadTagLength
        self.ForwardPayloadLength = ForwardPayloadLength
        self.UserForwardPayloadLength = UserForwardPayloadLength
        self.NextNodeHopLength = NextNodeHopLength
        self.SPRPKeyMaterialLength = SPRPKeyMaterialLength
        self.NIKEName = NIKEName
        self.KEMName = KEMName

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in vars(self).items())


class PigeonholeGeometry:
    """The sizes of the network's boxes and envelopes in bytes, as the daemon tells them."""

    LENGTH_PREFIX_SIZE = 4

    def __init__(
        self,
        *,
        max_plaintext_payload_length: int,
        courier_query_read_length: int = 0,
        courier_query_write_length: int = 0,
        courier_query_reply_read_length: int = 0,
        courier_query_reply_write_length: int = 0,
        nike_name: str = "",
        signature_scheme_name: str = "Ed25519",
    ) -> None:
        self.max_plaintext_payload_length = max_plaintext_payload_length
        self.courier_query_read_length = courier_query_read_length
        self.courier_query_write_length = courier_query_write_length
        self.courier_query_reply_read_length = courier_query_reply_read_length
        self.courier_query_reply_write_length = courier_query_reply_write_length
        self.nike_name = nike_name
        self.signature_scheme_name = signature_scheme_name

    def validate(self) -> None:
        """Raises ValueError where the sizes cannot be those of a network."""
        if self.max_plaintext_payload_length <= 0:
            raise ValueError("max_plaintext_payload_length must be positive")
        if not self.nike_name:
            raise ValueError("nike_name must be set")
        if self.signature_scheme_name != "Ed25519":
            raise ValueError("signature_scheme_name must be 'Ed25519'")

    def padded_payload_length(self) -> int:
        """The length of a box's contents with the length before them."""
        return self.max_plaintext_payload_length + self.LENGTH_PREFIX_SIZE

    def __str__(self) -> str:
        lines = [
            f"  {name}: {value} bytes" if isinstance(value, int) else f"  {name}: {value}"
            for name, value in vars(self).items()
        ]
        return "\n".join(["PigeonholeGeometry:", *lines])


PIGEONHOLE_KEYS = {
    "MaxPlaintextPayloadLength": "max_plaintext_payload_length",
    "CourierQueryReadLength": "courier_query_read_length",
    "CourierQueryWriteLength": "courier_query_write_length",
    "CourierQueryReplyReadLength": "courier_query_reply_read_length",
    "CourierQueryReplyWriteLength": "courier_query_reply_write_length",
    "NIKEName": "nike_name",
    "SignatureSchemeName": "signature_scheme_name",
}


def geometry(kind: Callable[..., Any], what: str, told: Any, keys: Optional[Dict[str, str]] = None) -> Any:
    if not isinstance(told, dict):
        raise ConfigError(f"daemon sent a malformed {what} (not a map)")
    try:
        return kind(**{keys[key] if keys else key: value for key, value in told.items()})
    except (KeyError, TypeError) as error:
        raise ConfigError(f"daemon sent a {what} with unknown or missing keys: {error}") from error
