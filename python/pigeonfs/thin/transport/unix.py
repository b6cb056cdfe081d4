"""A daemon that listens at a Unix socket."""

from dataclasses import dataclass


@dataclass
class UnixDialConfig:
    """``address`` is a path, or @NAME for a Linux abstract socket."""

    address: str
