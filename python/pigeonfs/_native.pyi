"""Sessions with a daemon, and CBOR. The package's own code is the only caller."""

from typing import Any, Dict, List, Optional, Tuple

__version__: str

def cbor_loads(data: bytes) -> Any: ...

class Session:
    def __init__(
        self,
        address: str,
        network: Optional[str],
        token: bytes,
        *,
        replies: bool,
        daemon_user: Optional[int],
        allow_remote: bool,
    ) -> None: ...
    def fileno(self) -> int: ...
    def put(self, id: int, request: Dict[str, Any], timeout: Optional[float]) -> None: ...
    def cancel(self, id: int) -> None: ...
    def drain(self) -> List[Tuple[Any, ...]]: ...
    def close(self, leave: bool, patience: float) -> bool: ...
