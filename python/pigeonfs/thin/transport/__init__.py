"""Where a daemon listens: the ``[Dial]`` table of a thin client's configuration."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Union

from .tcp import TcpDialConfig
from .unix import UnixDialConfig

__all__ = ["DialConfig", "UnixDialConfig", "TcpDialConfig"]

_TABLES = {"Unix": ({"Address"}, UnixDialConfig), "Tcp": ({"Address", "Network"}, TcpDialConfig)}


@dataclass
class DialConfig:
    """One way to the daemon: exactly one of the two is set."""

    unix: Optional[UnixDialConfig] = None
    tcp: Optional[TcpDialConfig] = None

    def validate(self) -> None:
        """Raises ValueError unless exactly one is set."""
        given = [dial for dial in (self.unix, self.tcp) if dial is not None]
        if len(given) != 1:
            raise ValueError(f"transport: exactly one dial transport must be configured, and there are {len(given)}")

    def resolve(self) -> Union[UnixDialConfig, TcpDialConfig]:
        """The one that is set."""
        self.validate()
        dial = self.unix if self.unix is not None else self.tcp
        assert dial is not None
        return dial

    @classmethod
    def from_toml_dict(cls, data: Dict[str, Any]) -> "DialConfig":
        """The configuration that a ``[Dial]`` table holds. Raises ValueError for anything else, unknown keys included."""
        unknown = sorted(set(data) - set(_TABLES))
        if unknown:
            raise ValueError(f"unknown subtable(s) {unknown} under [Dial]; expected one of {sorted(_TABLES)}")
        found: Dict[str, Any] = {}
        for name, table in data.items():
            keys, kind = _TABLES[name]
            if not isinstance(table, dict):
                raise ValueError(f"[Dial.{name}] must be a table")
            unknown = sorted(set(table) - keys)
            if unknown:
                raise ValueError(f"[Dial.{name}] has unknown key(s) {unknown}; expected {sorted(keys)}")
            if "Address" not in table:
                raise ValueError(f"[Dial.{name}] missing required key 'Address'")
            for key, value in table.items():
                if not isinstance(value, str):
                    raise ValueError(f"[Dial.{name}] {key} must be a string")
            found[name.lower()] = kind(**{key.lower(): value for key, value in table.items()})
        config = cls(**found)
        config.validate()
        return config
