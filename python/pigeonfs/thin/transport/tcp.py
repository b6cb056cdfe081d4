"""A daemon that listens at a TCP port."""

from dataclasses import dataclass


@dataclass
class TcpDialConfig:
    """``address`` is HOST:PORT, an IPv6 host in brackets; ``network`` is tcp, tcp4 or tcp6."""

    address: str
    network: str = "tcp"
