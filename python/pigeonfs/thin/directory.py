"""The services that a PKI document tells of."""

import hashlib
import pprint
from typing import Any, Dict, List, Tuple

from .._native import cbor_loads

__all__ = ["ServiceDescriptor", "blake2_256_sum", "find_services", "pretty_print_obj"]


def pretty_print_obj(obj: Any) -> str:
    """The object in several indented lines."""
    return pprint.pformat(obj, indent=4)


def blake2_256_sum(data: bytes) -> bytes:
    """BLAKE2b-256, as the network hashes keys and capabilities."""
    return hashlib.blake2b(data, digest_size=32).digest()


class ServiceDescriptor:
    """A service of the mixnet: the queue at its node, and what the PKI document says of the node."""

    def __init__(self, recipient_queue_id: bytes, mix_descriptor: Dict[Any, Any]) -> None:
        self.recipient_queue_id = recipient_queue_id
        self.mix_descriptor = mix_descriptor

    def to_destination(self) -> Tuple[bytes, bytes]:
        """The hash of the node's identity key, and the queue."""
        return blake2_256_sum(self.mix_descriptor["IdentityKey"]), self.recipient_queue_id


def find_services(capability: str, doc: Dict[str, Any]) -> List[ServiceDescriptor]:
    """The services of a document that offer a capability, such as ``echo`` or ``courier``."""
    found = []
    for encoded in doc["ServiceNodes"]:
        node = cbor_loads(encoded)
        details = (node.get("Kaetzchen") or {}).get(capability)
        if details is not None:
            found.append(ServiceDescriptor(details["endpoint"].encode(), node))
    return found
