"""The thin client of the Katzenpost daemon (kpclientd), for asyncio.

Names, arguments, results and exceptions are those of PyPI's ``katzenpost_thinclient`` 0.0.25; each call takes a ``timeout``
besides. Sessions are kept by Rust code, which connects again after each loss and cancels what nobody waits for.

>>> import asyncio
>>> from pigeonfs.thin import Config, ThinClient
>>> async def main(config):
...     async with ThinClient(Config(config)) as client:
...         pair = await client.new_keypair(bytes(32))
...         return len(pair.read_cap)
>>> asyncio.run(main(config))
136
"""

from . import codes
from .client import ThinClient
from .codes import *  # noqa: F403
from .config import Config, ConfigFile
from .core import LOCAL_TIMEOUT, MAX_MESSAGE_SIZE, MESSAGE_ID_SIZE, SURB_ID_SIZE
from .directory import ServiceDescriptor, blake2_256_sum, find_services, pretty_print_obj
from .geometry import Geometry, PigeonholeGeometry
from .pigeonhole import (
    CreateEnvelopesResult,
    EncryptReadResult,
    EncryptWriteResult,
    KeypairResult,
    StartResendingResult,
    TombstoneEnvelope,
    TombstoneRangeResult,
    VoucherInductResult,
    VoucherMintResult,
    VoucherOpenResult,
    VoucherStreamResult,
)

__all__ = [
    "Config",
    "ConfigFile",
    "CreateEnvelopesResult",
    "EncryptReadResult",
    "EncryptWriteResult",
    "Geometry",
    "KeypairResult",
    "LOCAL_TIMEOUT",
    "MAX_MESSAGE_SIZE",
    "MESSAGE_ID_SIZE",
    "PigeonholeGeometry",
    "SURB_ID_SIZE",
    "ServiceDescriptor",
    "StartResendingResult",
    "ThinClient",
    "TombstoneEnvelope",
    "TombstoneRangeResult",
    "VoucherInductResult",
    "VoucherMintResult",
    "VoucherOpenResult",
    "VoucherStreamResult",
    "blake2_256_sum",
    "find_services",
    "pretty_print_obj",
]
__all__ += codes.__all__
